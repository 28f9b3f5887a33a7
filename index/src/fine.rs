//! Three more bits for each number of a vector whose code is known: what is kept of vectors where little room is to be taken.
//!
//! A code says between which two places a number lies, a step apart; a fine code says in which eighth of that. The lowest and the highest code have
//! no end on one side, so there their eighths are half a step wide, outwards.
//!
//! The fine codes of eight dimensions are three bytes, those of 128 dimensions 48; dimensions are filled up to a multiple of 128.

use crate::quantiser::{BLOCK, LEVELS, Quantiser, code};

/// Parts of a step.
const PARTS: usize = 8;
/// Fine codes that share bytes, and how many bytes.
const GROUP: usize = 8;
const GROUP_BYTES: usize = 3;
/// Parts of the outermost steps, in steps.
const OUTER: f32 = 0.5;

/// Where in steps above the lowest level the middle of each part is: by code, and in it by fine code.
const MIDDLES: [f32; LEVELS * PARTS] = {
    let mut middles = [0.0; LEVELS * PARTS];
    let mut at = 0;
    while at < middles.len() {
        let (code, part) = (at / PARTS, (at % PARTS) as f32 + 0.5);
        middles[at] = match code {
            0 => 0.5 - OUTER * (PARTS as f32 - part),
            code if code == LEVELS - 1 => code as f32 - 0.5 + OUTER * part,
            code => code as f32 - 0.5 + part / PARTS as f32,
        };
        at += 1;
    }
    middles
};

/// Bytes of a row of fine codes.
pub(crate) fn bytes(dimensions: usize) -> usize {
    dimensions.div_ceil(BLOCK) * BLOCK / GROUP * GROUP_BYTES
}

/// Appends the fine codes of a vector, [`bytes`] of them.
///
/// - `codes`: the vector's, as the quantiser gives them.
pub(crate) fn encode(quantiser: &Quantiser<'_>, vector: &[f32], codes: &[u8], fine: &mut Vec<u8>) {
    let from = fine.len();
    fine.resize(from + bytes(vector.len()), 0);
    let groups = fine[from..].chunks_exact_mut(GROUP_BYTES).zip(vector.chunks(GROUP));
    for (first, (group, numbers)) in (0..).step_by(GROUP).zip(groups) {
        let mut bits = 0u32;
        for (at, x) in numbers.iter().enumerate() {
            let code = usize::from(code(codes, first + at));
            let place = quantiser.place(first + at, *x) - code as f32;
            let part = match code {
                0 => PARTS as f32 - (0.5 - place) / OUTER,
                code if code == LEVELS - 1 => (place + 0.5) / OUTER,
                _ => (place + 0.5) * PARTS as f32,
            };
            // `as` takes care of what is beyond the parts.
            bits |= u32::from((part as u8).min(PARTS as u8 - 1)) << (3 * at);
        }
        group.copy_from_slice(&bits.to_le_bytes()[..GROUP_BYTES]);
    }
}

/// The vector that codes and fine codes are nearest to, before it is made to unit length.
pub(crate) fn decode(quantiser: &Quantiser<'_>, codes: &[u8], fine: &[u8], vector: &mut [f32]) {
    let groups = fine.chunks_exact(GROUP_BYTES).zip(vector.chunks_mut(GROUP));
    for (first, (group, numbers)) in (0..).step_by(GROUP).zip(groups) {
        let bits = u32::from_le_bytes([group[0], group[1], group[2], 0]);
        for (at, x) in numbers.iter_mut().enumerate() {
            let part = (bits >> (3 * at)) as usize % PARTS;
            *x = quantiser.number(first + at, MIDDLES[usize::from(code(codes, first + at)) * PARTS + part]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantiser::{code_bytes, fit};

    #[test]
    fn numbers_are_decoded_to_a_sixteenth_of_a_step_or_a_quarter_beyond_the_levels() {
        let vectors: Vec<Vec<f32>> = (0..500)
            .map(|row| (0..131).map(|i| ((row * 131 + i) as f32 * 0.7).sin().powi(3) / (1.0 + i as f32)).collect())
            .collect();
        let slices: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
        let numbers = fit(&slices);
        let quantiser = Quantiser::view(&numbers);
        let mut beyond = 0;
        for vector in &vectors {
            // Some numbers are then beyond what the levels were chosen for.
            let vector: Vec<f32> = vector.iter().map(|x| 1.2 * x).collect();
            let (mut codes, mut fine, mut decoded) = (vec![0; code_bytes(131)], Vec::new(), vec![0.0; 131]);
            quantiser.encode(&vector, &mut codes);
            encode(&quantiser, &vector, &codes, &mut fine);
            assert_eq!(fine.len(), bytes(131));
            decode(&quantiser, &codes, &fine, &mut decoded);
            for (dimension, (x, decoded)) in vector.iter().zip(decoded).enumerate() {
                let (place, found) = (quantiser.place(dimension, *x), quantiser.place(dimension, decoded));
                let is_inner = (0.51..14.49).contains(&place);
                let most = if is_inner { 0.0626 } else { 0.2501 };
                assert!((-3.5..18.5).contains(&place) && (place - found).abs() < most, "{found} for {place}");
                beyond += usize::from(!(-0.5..15.5).contains(&place));
            }
        }
        assert!(beyond > 100, "{beyond} numbers lie beyond the levels");
    }
}
