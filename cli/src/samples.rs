//! The sample photos: `people/NAME/VIEW.jpg`, and `groups/` with a table of who stands where.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use vultus::Bounds;

/// A folder of samples.
pub(crate) struct Samples {
    /// By name.
    pub(crate) people: Vec<SamplePerson>,
    /// By file name.
    pub(crate) groups: Vec<GroupPhoto>,
}

/// One person's views.
pub(crate) struct SamplePerson {
    pub(crate) name: String,
    /// At least two, by file name.
    pub(crate) views: Vec<PathBuf>,
}

/// A photo of several people.
pub(crate) struct GroupPhoto {
    pub(crate) path: PathBuf,
    pub(crate) heads: Vec<Head>,
}

/// Who stands where: a row of `people.csv`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Head {
    file: String,
    pub(crate) person: String,
    x: f32,
    y: f32,
    size: f32,
}

impl Head {
    /// Whether a face was found in the square of this head.
    pub(crate) fn holds(&self, face: &Bounds) -> bool {
        let [x, y] = face.center();
        (self.x..self.x + self.size).contains(&x) && (self.y..self.y + self.size).contains(&y)
    }
}

impl Samples {
    /// Reads what a folder holds; photos stay unopened.
    ///
    /// # Errors
    /// Says what is missing, and how to name another folder.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let hint = || {
            let folder = folder.display();
            format!("{folder}: no sample photos; start where vultus was cloned, or say --samples FOLDER")
        };
        let mut people = Vec::new();
        for person in entries(&folder.join("people")).with_context(hint)? {
            let name = person.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let views = if person.is_dir() { entries(&person)? } else { Vec::new() };
            if views.len() > 1 {
                people.push(SamplePerson { name, views });
            }
        }
        anyhow::ensure!(people.len() > 1, "{}: expected two people or more, with two views or more", folder.display());
        let table = folder.join("groups/people.csv");
        let mut groups: Vec<GroupPhoto> = Vec::new();
        for head in csv::Reader::from_path(&table).with_context(hint)?.deserialize() {
            let head: Head = head.with_context(|| table.display().to_string())?;
            let path = folder.join("groups").join(&head.file);
            match groups.iter_mut().find(|group| group.path == path) {
                Some(group) => group.heads.push(head),
                None => groups.push(GroupPhoto { path, heads: vec![head] }),
            }
        }
        anyhow::ensure!(!groups.is_empty(), "{}: no group photo", table.display());
        Ok(Self { people, groups })
    }

    /// Whether this person has a folder: the others are strangers.
    pub(crate) fn knows(&self, person: &str) -> bool {
        self.people.iter().any(|known| known.name == person)
    }
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
