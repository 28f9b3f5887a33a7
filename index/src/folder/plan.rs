//! Which segments are written anew, and when.
//!
//! A seal writes what is pending at once, with small segments that have no graph; what a seal leaves is merged in the background. A vector is
//! written again when its segment is merged with others of up to four times its size, so it is written a few times for each time that the
//! index grows fourfold, and an index of n vectors has about log₄(n / graph_vectors_min) segments with graphs, and a few without.

/// A segment is written anew once more than this share of it is deleted: dead rows slow every scan and every walk.
const DELETED_SHARE_MAX: f64 = 0.25;

/// A segment waits until what is new is this share of it: every segment more is walked by every search, and every merge costs as much as it writes.
const MERGED_WITH: usize = 4;

/// What the plan needs to know of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Vectors in the file.
    pub(super) count: usize,
    /// Those that are not deleted.
    pub(super) alive: usize,
    pub(super) has_graph: bool,
    pub(super) state: State,
}

/// What is known of a segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing that is bad.
    Sound,
    /// Its links or codes are damaged, or of an older release: to be written anew.
    Worn,
    /// Its ids or vectors are: it cannot be.
    Lost,
}

/// The sizes that a plan keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// From so many vectors on a segment gets a graph.
    pub(super) graph: usize,
    /// What a merge leaves has at most so many vectors, unless one of its sources alone had more.
    pub(super) merged: usize,
}

/// The segments that a seal writes together with `pending` vectors, as places in `sizes`, ascending.
///
/// Those without a graph, smallest first, each that is smaller than twice what there is so far: while all of it is too small for a graph.
pub(super) fn sealed(sizes: &[Size], pending: usize, bounds: Bounds) -> Vec<usize> {
    let small = (0..sizes.len()).filter(|at| !sizes[*at].has_graph && sizes[*at].state == State::Sound);
    absorbed(sizes, small.collect(), Vec::new(), pending, |alive, total| {
        alive < total.saturating_mul(2) && total + alive < bounds.graph
    })
}

/// The segments to merge in the background, as places in `sizes`, ascending; none where all is well.
///
/// Those with too many deleted, an old graph or damage that can be mended, and all without a graph once they are enough for one; then, smallest first, each that is
/// smaller than a graph's least or than four times what is merged so far.
pub(super) fn merged(sizes: &[Size], bounds: Bounds) -> Vec<usize> {
    let possible: Vec<usize> = (0..sizes.len()).filter(|at| sizes[*at].state != State::Lost).collect();
    let without_graph = possible.iter().map(|at| &sizes[*at]).filter(|size| !size.has_graph);
    let alive_without_graph: usize = without_graph.map(|size| size.alive).sum();
    let must = |size: &Size| {
        let is_worn = (size.count - size.alive) as f64 > size.count as f64 * DELETED_SHARE_MAX;
        is_worn || size.state == State::Worn || (!size.has_graph && alive_without_graph >= bounds.graph)
    };
    let (mut first, mut others): (Vec<usize>, Vec<usize>) = possible.into_iter().partition(|at| must(&sizes[*at]));
    first.sort_by_key(|at| sizes[*at].alive);
    // The smallest is taken in any case, and what then fits.
    let Some((&smallest, rest)) = first.split_first() else { return Vec::new() };
    let fits = |alive: usize, total: usize| total.saturating_add(alive) <= bounds.merged;
    let taken = absorbed(sizes, rest.to_vec(), vec![smallest], sizes[smallest].alive, fits);
    others.retain(|at| !taken.contains(at));
    let total = taken.iter().map(|at| sizes[*at].alive).sum();
    absorbed(sizes, others, taken, total, |alive, total| {
        total > 0 && alive < bounds.graph.max(total.saturating_mul(MERGED_WITH)) && fits(alive, total)
    })
}

/// `taken`, and of the others, smallest first, as many as are good, given how many are alive in the next and in what is taken.
fn absorbed(
    sizes: &[Size],
    mut others: Vec<usize>,
    mut taken: Vec<usize>,
    mut total: usize,
    is_good: impl Fn(usize, usize) -> bool,
) -> Vec<usize> {
    others.sort_by_key(|at| sizes[*at].alive);
    for at in others {
        if !is_good(sizes[at].alive, total) {
            break;
        }
        taken.push(at);
        total += sizes[at].alive;
    }
    taken.sort_unstable();
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { graph: 100, merged: 5_000 };

    /// Vectors and how many are alive; with a graph from a hundred on.
    fn size((count, alive): (usize, usize)) -> Size {
        Size { count, alive, has_graph: count >= BOUNDS.graph, state: State::Sound }
    }

    #[track_caller]
    fn check_sealed(sizes: &[(usize, usize)], pending: usize, expected: &[usize]) {
        let sizes: Vec<Size> = sizes.iter().copied().map(size).collect();
        assert_eq!(sealed(&sizes, pending, BOUNDS), expected);
    }

    #[track_caller]
    fn check_merged(sizes: &[(usize, usize)], expected: &[usize]) {
        let sizes: Vec<Size> = sizes.iter().copied().map(size).collect();
        assert_eq!(merged(&sizes, BOUNDS), expected);
    }

    #[test]
    fn a_seal_takes_segments_of_its_size_with_it_and_no_graph() {
        check_sealed(&[(1000, 1000), (30, 30), (9, 9)], 5, &[2]);
        check_sealed(&[(1000, 1000), (30, 30), (9, 9)], 8, &[1, 2]);
        check_sealed(&[(60, 60)], 50, &[]);
        check_sealed(&[(1000, 1000)], 900, &[]);
    }

    #[test]
    fn deletions_alone_write_no_vectors() {
        check_sealed(&[(1000, 800), (60, 60)], 0, &[]);
        check_merged(&[(1000, 800), (60, 60)], &[]);
    }

    #[test]
    fn segments_without_a_graph_are_merged_once_they_are_enough_for_one() {
        check_merged(&[(60, 60), (39, 39)], &[]);
        check_merged(&[(60, 60), (40, 40)], &[0, 1]);
    }

    #[test]
    fn a_segment_with_a_graph_waits_until_what_is_new_is_a_fourth_of_its_size() {
        check_merged(&[(1000, 1000), (60, 60), (50, 50)], &[1, 2]);
        check_merged(&[(400, 400), (60, 60), (50, 50)], &[0, 1, 2]);
    }

    #[test]
    fn a_segment_with_many_deleted_is_written_anew() {
        check_merged(&[(1000, 700), (5000, 5000)], &[0]);
        check_merged(&[(1000, 700), (2500, 2500)], &[0, 1]);
    }

    #[test]
    fn a_damaged_segment_is_written_anew() {
        let sizes = [size((1000, 1000)), Size { state: State::Worn, ..size((900, 900)) }];
        assert_eq!(merged(&sizes, BOUNDS), [0, 1]);
        assert_eq!(merged(&sizes[1..], BOUNDS), [0]);
    }

    #[test]
    fn a_segment_that_cannot_be_read_is_left_alone() {
        let lost = |(count, alive)| Size { state: State::Lost, ..size((count, alive)) };
        assert_eq!(merged(&[lost((900, 500)), size((60, 60)), lost((70, 70)), size((50, 50))], BOUNDS), [1, 3]);
        assert_eq!(sealed(&[lost((9, 9)), size((10, 10))], 8, BOUNDS), [1]);
    }

    #[test]
    fn what_would_be_too_large_to_merge_stays_apart() {
        check_merged(&[(4000, 2900), (4000, 2800)], &[1]);
        check_merged(&[(4000, 2900), (4000, 2100)], &[0, 1]);
    }

    #[test]
    fn many_small_seals_leave_few_segments_and_write_each_vector_few_times() {
        let (mut sizes, mut written) = (Vec::<Size>::new(), 0);
        let mut write = |sizes: &mut Vec<Size>, places: &[usize], more: usize| {
            let alive = more + places.iter().map(|at| sizes[*at].alive).sum::<usize>();
            written += alive;
            *sizes = (0..sizes.len()).filter(|at| !places.contains(at)).map(|at| sizes[at]).collect();
            sizes.push(size((alive, alive)));
        };
        let bounds = Bounds { merged: 1_000_000, ..BOUNDS };
        for _ in 0..2000 {
            let places = sealed(&sizes, 10, bounds);
            write(&mut sizes, &places, 10);
            let places = merged(&sizes, bounds);
            if !places.is_empty() {
                write(&mut sizes, &places, 0);
            }
        }
        assert!(sizes.len() <= 12, "{} segments", sizes.len());
        assert!(written <= 20_000 * 14, "each vector was written {} times", written / 20_000);
    }
}
