//! Pixels in runs, cut into what tiles take: groups of a few pixels, two of a size together where there are two.

/// Pixels at equal distances, and where their outputs go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) a: usize,
    pub(crate) out: usize,
    /// Where the residuals begin, if there are any.
    pub(crate) residual: usize,
    /// How many pixels.
    pub(crate) count: usize,
}

/// Where a group's first pixel is in each of the slices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) a: usize,
    pub(super) out: usize,
    pub(super) residual: usize,
}

/// One or two groups of as many pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    pub(super) count: usize,
    pub(super) pixels: usize,
    /// The same place twice where there is one group.
    pub(super) places: [Place; 2],
}

/// - `step`: from one pixel to the next in each of the slices.
/// - `limits`: the most pixels of one group, and of a group that has a second one beside it (0: none).
pub(super) fn cut(runs: &[Run], step: Place, limits: (usize, usize)) -> Vec<Groups> {
    let (alone, paired) = limits;
    let mut all: Vec<Groups> = Vec::new();
    // Of each size, at most one group waits for a second one.
    let mut waiting = [None; 8];
    for run in runs.iter().filter(|run| run.count > 0) {
        let parts = run.count.div_ceil(alone);
        for part in 0..parts {
            let (from, to) = (part * run.count / parts, (part + 1) * run.count / parts);
            let pixels = to - from;
            let place = Place {
                a: run.a + from * step.a,
                out: run.out + from * step.out,
                residual: run.residual + from * step.residual,
            };
            match waiting[pixels].take().filter(|_| pixels <= paired) {
                Some(first) => {
                    let groups: &mut Groups = &mut all[first];
                    (groups.count, groups.places[1]) = (2, place);
                }
                None => {
                    waiting[pixels] = Some(all.len());
                    all.push(Groups { count: 1, pixels, places: [place; 2] });
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_a_size_are_paired_and_nothing_is_left_out() {
        let run = |a, count| Run { a, out: 2 * a, residual: 3 * a, count };
        let step = Place { a: 1, out: 2, residual: 3 };
        for limits in [(7, 7), (6, 3), (1, 0)] {
            let all = cut(&[run(0, 9), run(20, 0), run(30, 4), run(40, 13)], step, limits);
            let mut pixels = Vec::new();
            for Groups { count, pixels: each, places } in &all {
                assert!(*each <= if *count == 2 { limits.1 } else { limits.0 }, "{all:?}");
                for place in &places[..*count] {
                    assert_eq!((place.out, place.residual), (2 * place.a, 3 * place.a));
                    pixels.extend(place.a..place.a + each);
                }
            }
            pixels.sort_unstable();
            assert_eq!(pixels, (0..9).chain(30..34).chain(40..53).collect::<Vec<_>>());
            let alone = |pixels| all.iter().filter(|groups| groups.count == 1 && groups.pixels == pixels).count();
            assert!((1..=limits.1).all(|pixels| alone(pixels) < 2), "{all:?}");
        }
    }
}
