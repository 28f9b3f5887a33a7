//! Which segments the next seal writes anew.
//!
//! A vector is written again when its segment is merged with others of its size, so it is written about as often as the index
//! doubles, and an index of n vectors has about log₂(n / graph_vectors_min) segments.

/// A segment is written anew once more than this share of it is deleted: dead rows slow every scan and every walk.
const DELETED_SHARE_MAX: f64 = 0.25;

/// What the plan needs to know of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Vectors in the file.
    pub(super) count: usize,
    /// Those that are not deleted.
    pub(super) alive: usize,
}

/// The segments to merge with `pending` vectors into a new one, as places in `sizes`, ascending.
///
/// Those with too many deleted; then, smallest first, each that is smaller than `graph_vectors_min` or than twice what is merged
/// so far. Without pending vectors only the former, unless something is left of them.
pub(super) fn merged(sizes: &[Size], pending: usize, graph_vectors_min: usize) -> Vec<usize> {
    let is_worn = |size: &Size| (size.count - size.alive) as f64 > size.count as f64 * DELETED_SHARE_MAX;
    let (mut merged, mut others): (Vec<usize>, Vec<usize>) = (0..sizes.len()).partition(|at| is_worn(&sizes[*at]));
    let mut total = pending + merged.iter().map(|at| sizes[*at].alive).sum::<usize>();
    others.sort_by_key(|at| sizes[*at].alive);
    for at in others {
        let alive = sizes[at].alive;
        if total == 0 || alive >= graph_vectors_min.max(total.saturating_mul(2)) {
            break;
        }
        merged.push(at);
        total += alive;
    }
    merged.sort_unstable();
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sizes: &[(usize, usize)], pending: usize, expected: &[usize]) {
        let sizes: Vec<Size> = sizes.iter().map(|&(count, alive)| Size { count, alive }).collect();
        assert_eq!(merged(&sizes, pending, 100), expected);
    }

    #[test]
    fn a_small_segment_is_merged_with_what_is_new() {
        check(&[(1000, 1000), (60, 60)], 3, &[1]);
    }

    #[test]
    fn a_large_segment_waits_until_what_is_new_is_half_its_size() {
        check(&[(1000, 1000)], 500, &[]);
        check(&[(1000, 1000)], 501, &[0]);
        check(&[(1000, 1000), (400, 400)], 201, &[0, 1]);
    }

    #[test]
    fn deletions_alone_write_no_vectors() {
        check(&[(1000, 800), (60, 60)], 0, &[]);
    }

    #[test]
    fn a_segment_with_many_deleted_is_written_anew() {
        check(&[(1000, 700), (5000, 5000)], 0, &[0]);
    }

    #[test]
    fn a_segment_with_nothing_left_is_dropped_alone() {
        check(&[(1000, 0), (60, 60)], 0, &[0]);
    }

    #[test]
    fn many_small_seals_leave_few_segments_and_write_each_vector_few_times() {
        let (mut sizes, mut written) = (Vec::<Size>::new(), 0);
        for _ in 0..2000 {
            let places = merged(&sizes, 10, 100);
            let alive = 10 + places.iter().map(|at| sizes[*at].alive).sum::<usize>();
            written += alive;
            sizes = (0..sizes.len()).filter(|at| !places.contains(at)).map(|at| sizes[at]).collect();
            sizes.push(Size { count: alive, alive });
        }
        assert!(sizes.len() <= 9, "{} segments", sizes.len());
        assert!(written <= 20_000 * 14, "each vector was written {} times", written / 20_000);
    }
}
