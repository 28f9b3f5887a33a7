//! What the index does not take, and what it says then.

use tempfile::tempdir;
use vultus_index::{Effort, Error, Index, Search};

use crate::data::{exactly, numbered, options};

#[test]
fn a_vector_that_is_not_a_unit_vector_of_the_right_length_is_refused_and_nothing_changes() {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), options(3, 100)).unwrap();
    for bad in [[f32::NAN, 1.0, 0.0], [f32::INFINITY, 0.0, 0.0], [0.0; 3], [1.0, 1.0, 0.0], [f32::MAX; 3]] {
        assert!(matches!(index.add(1, &bad), Err(Error::NotUnit { .. })), "{bad:?} was taken");
        assert!(matches!(index.search(&bad, &exactly(1)), Err(Error::NotUnit { .. })), "{bad:?} was searched");
    }
    for bad in [&[][..], &[1.0], &[1.0, 0.0, 0.0, 0.0]] {
        assert!(matches!(index.add(1, bad), Err(Error::Dimensions { expected: 3, .. })));
        assert!(matches!(index.search(bad, &exactly(1)), Err(Error::Dimensions { expected: 3, .. })));
    }
    assert_eq!((index.count(), index.pending()), (0, 0));
}

#[test]
fn nothing_asked_and_nothing_stored_are_empty_answers() {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), options(8, 2)).unwrap();
    assert_eq!(index.search(&numbered(1, 8), &exactly(3)).unwrap(), []);
    index.add(1, &numbered(1, 8)).unwrap();
    index.seal(1).unwrap();
    assert_eq!(index.search(&numbered(1, 8), &Search { k: 0, ..Search::default() }).unwrap(), []);
    let nobody = roaring::RoaringTreemap::new();
    let search = Search { allowed: Some(&nobody), ..Search::default() };
    assert_eq!(index.search(&numbered(1, 8), &search).unwrap(), []);
    let all = Search { k: usize::MAX, effort: Effort::Width(usize::MAX), ..Search::default() };
    assert_eq!(index.search(&numbered(1, 8), &all).unwrap().len(), 1);
}

#[test]
fn other_dimensions_than_the_folder_was_made_with_are_refused() {
    let folder = tempdir().unwrap();
    drop(Index::open(folder.path(), options(8, 2)).unwrap());
    let opened = Index::open(folder.path(), options(9, 2));
    assert!(matches!(opened, Err(Error::Dimensions { expected: 8, found: 9 })));
}

#[test]
fn an_index_of_no_dimensions_or_too_many_is_not_made() {
    let folder = tempdir().unwrap();
    for dimensions in [0, 65_537, usize::MAX] {
        let made = Index::open(folder.path(), options(dimensions, 2));
        assert!(matches!(made, Err(Error::DimensionsRange { .. })), "{dimensions} dimensions");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_open_is_not_opened_again() {
    let folder = tempdir().unwrap();
    let index = Index::open(folder.path(), options(8, 2)).unwrap();
    assert!(matches!(Index::open(folder.path(), options(8, 2)), Err(Error::Locked { .. })));
    drop(index);
    Index::open(folder.path(), options(8, 2)).unwrap();
}

#[test]
fn a_seal_that_cannot_write_leaves_everything_as_it_was() {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), options(8, 100)).unwrap();
    index.add(1, &numbered(1, 8)).unwrap();
    index.seal(1).unwrap();
    index.add(2, &numbered(2, 8)).unwrap();
    // A folder where the next segment would be written.
    let in_the_way = folder.path().join("000002.seg.tmp");
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(matches!(index.seal(2), Err(Error::Io { .. })));
    assert_eq!((index.sequence(), index.pending(), index.scroll(0, 9).unwrap()), (1, 1, vec![1, 2]));
    std::fs::remove_dir(&in_the_way).unwrap();
    index.seal(2).unwrap();
    drop(index);
    let index = Index::open(folder.path(), options(8, 100)).unwrap();
    assert_eq!((index.sequence(), index.pending(), index.scroll(0, 9).unwrap()), (2, 0, vec![1, 2]));
}
