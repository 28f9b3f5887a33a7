//! Upright RGB pixels, and how bytes become them without trusting the bytes.
//!
//! Knows nothing of faces. `decode` is the only way in for foreign bytes; `pixels` and `sample` alone
//! turn pixels into other pixels, so that detection and alignment average in the same way.

mod decode;
mod outline;
pub(crate) mod pixels;
pub(crate) mod sample;
pub mod shard;

use std::fmt;

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

use crate::{Error, Result};

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

impl fmt::Debug for Photo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Photo({} x {})", self.width, self.height)
    }
}

impl Photo {
    /// Decodes JPEG, PNG or WebP to upright RGB.
    ///
    /// The format is read from the bytes, never from a name. EXIF orientation is applied; grey, CMYK and 16-bit samples become
    /// 8-bit RGB; transparency is laid over white, as a page shows it, since the colour of a transparent pixel is arbitrary; an animation
    /// gives its first frame. Embedded colour profiles are ignored.
    ///
    /// # Errors
    /// [`Error::Photo`] says what was expected and found: another format, damaged or truncated bytes, or a size beyond
    /// `limits`, which is read from the header before any pixel is allocated.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self> {
        decode::decode(bytes, limits)
    }

    /// Takes `width * height * 3` bytes, rows from the top.
    ///
    /// # Errors
    /// [`Error::Argument`] when a side is zero or the length does not fit.
    pub fn from_rgb(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self> {
        let expected = u128::from(width) * u128::from(height) * 3;
        if expected == 0 || pixels.len() as u128 != expected {
            return Err(Error::argument(
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

    /// The same photo with another number of pixels, averaged where there are fewer; at least one on each side.
    #[must_use]
    pub fn resized(&self, width: u32, height: u32) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let pixels = pixels::Pixels::of(self).resized(width as usize, height as usize).into_bytes();
        Self { width, height, pixels }
    }

    /// Encodes as baseline JPEG.
    ///
    /// - `quality`: 1 to 100; 85 is a good picture.
    ///
    /// # Errors
    /// [`Error::Argument`] when `quality` is out of range or a side is longer than the 65,535 px that a JPEG can hold.
    pub fn to_jpeg(&self, quality: u8) -> Result<Vec<u8>> {
        if !(1..=100).contains(&quality) {
            return Err(Error::argument("quality", format!("{quality} is not within 1 to 100")));
        }
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, quality)
            .encode(&self.pixels, self.width, self.height, ExtendedColorType::Rgb8)
            .map_err(|error| Error::argument("photo", format!("can't be written as JPEG: {error}")))?;
        Ok(jpeg)
    }
}
