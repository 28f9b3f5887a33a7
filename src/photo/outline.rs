//! What a file's outline says before it is decoded: whether it is whole, and what decoding it costs.
//!
//! The JPEG decoder fills what is missing from a truncated file with grey and reports success, as browsers want it. Half a face
//! must not be embedded, so the segments are walked here up to the end-of-image marker (ITU T.81, annex B). The WebP decoder
//! allocates what a chunk's header announces, so the chunks are held to the length of the file (RFC 9649, section 2.3).

/// What the walk over the segments of a JPEG found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Jpeg {
    /// The end-of-image marker was reached.
    pub(super) whole: bool,
    /// Coefficients of the whole picture are kept while it is decoded: 2 bytes a sample beside the pixels.
    pub(super) progressive: bool,
}

const SOF2_PROGRESSIVE: u8 = 0xC2;
const EOI: u8 = 0xD9;

/// Walks the markers; entropy-coded data is skipped to the next marker, a segment by its length. A thumbnail inside a
/// segment therefore can't be taken for the end.
pub(super) fn jpeg(bytes: &[u8]) -> Jpeg {
    let mut outline = Jpeg::default();
    let mut at = 2;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xFF)) {
        at += found + 1;
        let Some(marker) = bytes.get(at).copied() else { break };
        match marker {
            // Padding; the next byte may be the marker.
            0xFF => continue,
            EOI => {
                outline.whole = true;
                break;
            }
            // A stuffed zero, and markers without a length: TEM, restarts, start of image.
            0x00 | 0x01 | 0xD0..=0xD8 => at += 1,
            _ => {
                outline.progressive |= marker == SOF2_PROGRESSIVE;
                let Some(length) = bytes.get(at + 1..at + 3) else { break };
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
    outline
}

/// Whether every chunk of a WebP lies within the file.
pub(super) fn webp_is_whole(bytes: &[u8]) -> bool {
    let end = 8 + length(bytes, 4);
    let mut at = 12;
    while at < end {
        if at + 8 > bytes.len() as u64 {
            return false;
        }
        let size = length(bytes, at as usize + 4);
        if at + 8 + size > bytes.len() as u64 {
            return false;
        }
        // Chunks are padded to even lengths.
        at += 8 + size + size % 2;
    }
    end <= bytes.len() as u64
}

/// The little-endian length at an offset; nothing there is a length that no file has.
fn length(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 4)
        .map_or(u64::from(u32::MAX), |four| u64::from(u32::from_le_bytes([four[0], four[1], four[2], four[3]])))
}
