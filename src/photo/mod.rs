//! Upright RGB pixels, and how bytes become them without trusting the bytes.

use crate::Result;

/// What a decoder may spend on one file, checked before pixels are allocated.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest side accepted, in pixels.
    pub side_px_max: u32,
    /// Memory that decoding one photo may take, in bytes.
    pub decode_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { side_px_max: 16_384, decode_bytes_max: 512 << 20 }
    }
}

/// Upright RGB pixels, 8 bits a channel, rows from the top, no padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Photo {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Photo {
    /// Decodes JPEG, PNG or WebP.
    ///
    /// # Errors
    /// [`Error::Photo`](crate::Error::Photo) says what was expected and found.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let _ = (bytes, limits);
        todo!()
    }

    /// Takes `width * height * 3` bytes, rows from the top.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when a side is zero or the length does not fit.
    pub fn from_rgb(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self> {
        let expected = u64::from(width) * u64::from(height) * 3;
        if expected == 0 || pixels.len() as u64 != expected {
            return Err(crate::Error::argument(
                "pixels",
                format!("{width} x {height} RGB needs {expected} bytes, at least one pixel; found {}", pixels.len()),
            ));
        }
        Ok(Self { width, height, pixels })
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes: `height * width * 3`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}
