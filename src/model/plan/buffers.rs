//! Where the pictures of each value are while a network runs, and which steps follow each other picture by picture.

use std::ops::Range;

use super::step::{Kind, Step};
use crate::model::kernel::{ByteConvolution, Map};

/// The pictures of one value.
#[derive(Debug)]
pub(super) enum Value {
    Floats(Vec<f32>),
    Bytes(Vec<u8>),
}

/// The values of one run, and the size of input that they were laid out for.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    size: [usize; 2],
    pub(super) values: Vec<Value>,
}

/// Steps that as many pictures go through one after the other: what only these steps read stays in the cache.
pub(super) struct Group {
    pub(super) steps: Range<usize>,
    pub(super) together: usize,
}

/// In which order steps and pictures are taken.
pub(super) struct Order {
    pub(super) groups: Vec<Group>,
    /// How many pictures each value holds at a time, where it is read by its own group alone.
    held: Vec<Option<usize>>,
}

impl Order {
    pub(super) fn new(steps: &[Step], maps: &[Map], most: usize) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let together = together(step, &maps[step.input], &maps[at + 1], most);
            match groups.last_mut() {
                Some(group) if group.together == together => group.steps.end = at + 1,
                _ => groups.push(Group { steps: at..at + 1, together }),
            }
        }
        // The input is made when its first reader wants it; the last value is what is asked for.
        let maker = |value: usize| groups.iter().position(|group| group.steps.contains(&value.saturating_sub(1)));
        let mut held: Vec<Option<usize>> =
            (0..maps.len()).map(|value| maker(value).map(|group| groups[group].together)).collect();
        held[maps.len() - 1] = None;
        for (at, step) in steps.iter().enumerate() {
            for value in [Some(step.input), step.residual].into_iter().flatten() {
                if maker(value) != maker(at + 1) {
                    held[value] = None;
                }
            }
        }
        Self { groups, held }
    }

    /// Where, in pictures, those from `first` on begin in the buffer of a value.
    pub(super) fn place(&self, value: usize, first: usize) -> usize {
        if self.held[value].is_some() { 0 } else { first }
    }
}

/// Pictures that a layer is best given at once: so few that they stay in the caches, so many that weights are about a quarter of what it
/// touches, or half where they are bytes, which last longer. Powers of two, so that the groups of one layer are whole groups of the next.
fn together(step: &Step, from: &Map, to: &Map, most: usize) -> usize {
    let pictures = from.len() * step.work.reads().size() + to.len() * step.work.kind().size();
    let share = if step.work.reads() == Kind::Bytes { 1 } else { 3 };
    (share * step.work.weight_bytes() / pictures.max(1)).clamp(1, most).next_power_of_two()
}

impl Buffers {
    /// Gives every value the size that `count` pictures need, and borders of zeros.
    pub(super) fn lay_out(&mut self, steps: &[Step], order: &Order, maps: &[Map], count: usize) {
        if self.values.is_empty() {
            let kinds = [Kind::Floats].into_iter().chain(steps.iter().map(|step| step.work.kind()));
            let value = |kind| if kind == Kind::Floats { Value::Floats(Vec::new()) } else { Value::Bytes(Vec::new()) };
            self.values = kinds.map(value).collect();
        }
        // Nothing writes into borders, so those of other pictures of this size are still zeros.
        let size = [maps[0].height, maps[0].width];
        let clean = self.size == size;
        for ((value, map), held) in self.values.iter_mut().zip(maps).zip(&order.held) {
            let count = held.map_or(count, |held| held.min(count));
            match value {
                Value::Floats(values) => lay_out(values, map, count, 0, clean),
                Value::Bytes(values) => lay_out(values, map, count, ByteConvolution::SLACK, clean),
            }
        }
        self.size = size;
    }

    /// Copies inputs into the first value, from picture `place` on.
    pub(super) fn fill(&mut self, map: &Map, x: &[f32], place: usize) {
        if let Value::Floats(values) = &mut self.values[0] {
            let pictures = x.chunks_exact(map.height * map.width * map.channels);
            pictures.zip(values[place * map.len()..].chunks_exact_mut(map.len())).for_each(|(x, to)| map.fill(x, to));
        }
    }
}

fn lay_out<T: Copy + Default>(values: &mut Vec<T>, map: &Map, count: usize, slack: usize, clean: bool) {
    values.resize(count * map.len() + slack, T::default());
    if map.border > 0 && !clean {
        values.chunks_exact_mut(map.len()).take(count).for_each(|picture| map.clear_border(picture));
    }
}
