//! A disk that is full: the real thing, where the system lets a test mount one.

use std::path::Path;
use std::process::Command;

use tempfile::tempdir;
use vultus_index::{Error, Index, Search};

use crate::data::{numbered, options};

const DIMENSIONS: usize = 32;
const CHILD: &str = "VULTUS_TEST_FILLS";

/// Not a test of its own: what runs inside a mount namespace, where `CHILD` names a folder of 2 MiB.
#[test]
fn child_that_fills_its_disk() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let folder = Path::new(&folder);
    let options = options(DIMENSIONS, 3_000);
    let mut index = Index::open(&folder.join("index"), options).unwrap();
    let (mut id, mut sequence) = (0, 0);
    let failed = loop {
        let until = id + 400;
        (id..until).for_each(|id| index.add(id, &numbered(id, DIMENSIONS)).unwrap());
        id = until;
        // What is merged needs room as well.
        match index.seal(sequence + 1).and_then(|()| index.settle()) {
            Ok(()) => sequence += 1,
            Err(error) => break error,
        }
        assert!(id < 100_000, "the disk is not small");
    };
    assert!(
        matches!(&failed, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull),
        "{failed}"
    );
    assert!(id >= 2_000, "full after {id} vectors");
    let check = |index: &Index, ids: u64| {
        assert_eq!(index.count() as u64, ids);
        for id in (0..ids).step_by(97) {
            let found = index.search(&numbered(id, DIMENSIONS), &Search { k: 1, ..Search::default() }).unwrap();
            assert_eq!(found[0].id, id);
        }
    };
    // Everything is answered while it is full, also by one that is opened now.
    check(&index, id);
    let sealed = index.sequence();
    drop(index);
    let mut index = Index::open(&folder.join("index"), options).unwrap();
    assert_eq!(index.sequence(), sealed);
    let kept = index.count() as u64;
    check(&index, kept);
    // Room again: it goes on from what it has.
    let mounted = Command::new("mount").args(["-o", "remount,size=64m"]).arg(folder).status().unwrap();
    assert!(mounted.success());
    (kept..id).for_each(|id| index.add(id, &numbered(id, DIMENSIONS)).unwrap());
    index.seal(sealed + 1).unwrap();
    index.settle().unwrap();
    check(&index, id);
    assert!(index.verify().is_empty());
    println!("the disk was full after {id} vectors");
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let folder = tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=2m tmpfs "$VULTUS_TEST_FILLS" || exit 77; exec "$0" --exact full_disk::child_that_fills_its_disk --nocapture"#;
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, folder.path())
        .output();
    let Ok(output) = child else {
        println!("skipped: there is no `unshare` to mount a small disk with");
        return;
    };
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) || text.contains("unshare:") {
        println!("skipped: this system lets no test mount a small disk");
        return;
    }
    assert!(output.status.success() && text.contains("the disk was full"), "{text}");
}
