//! The recipes that ship can be read, and make the networks that their cards promise.

use std::path::Path;

use vultus::training::Recipe;

#[test]
fn every_recipe_that_ships_can_be_trained() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let recipe = Recipe::read(&path).unwrap();
            assert!(recipe.steps() > 0);
            let small = path.ends_with("small.toml");
            let multiplications = recipe.network.multiplications();
            assert!(!small || (200_000_000..300_000_000).contains(&multiplications), "{multiplications}");
            found += 1;
        }
    }
    assert!(found >= 2, "{found} recipes");
}
