//! Bytes → photo: the format from its first bytes, the limits before the pixels, then upright 8-bit RGB.

use std::io::Cursor;

use image::codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError};

use super::{Limits, Photo, outline};
use crate::{Error, Result};

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Photo> {
    let format = Format::sniff(bytes)?;
    match format {
        Format::Jpeg => {
            let outline = outline::jpeg(bytes);
            let decoder = JpegDecoder::new(Cursor::new(bytes)).map_err(|error| format.error(&error))?;
            // The size is judged first: whoever sends 65,535 x 65,535 wants to hear of that.
            let work = if outline.progressive { 6 } else { 1 };
            check_size(&decoder, work, limits)?;
            if !outline.whole {
                return Err(photo("the JPEG is truncated: it has no end-of-image marker"));
            }
            read(format, decoder, limits)
        }
        Format::Png => {
            // Memory only, for what stands before the pixels: the sides are judged below, with figures.
            let mut memory = image::Limits::no_limits();
            memory.max_alloc = Some(limits.decode_bytes_max);
            let decoder = PngDecoder::with_limits(Cursor::new(bytes), memory).map_err(|error| format.error(&error))?;
            check_size(&decoder, 1, limits)?;
            read(format, decoder, limits)
        }
        Format::WebP => {
            if !outline::webp_is_whole(bytes) {
                return Err(photo("the WebP is truncated or damaged: a chunk reaches beyond the end of the file"));
            }
            let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| format.error(&error))?;
            check_size(&decoder, 4, limits)?;
            read(format, decoder, limits)
        }
    }
}

/// The formats that are read, each by the decoder that this crate compiles in.
#[derive(Clone, Copy, Debug)]
enum Format {
    Jpeg,
    Png,
    WebP,
}

impl Format {
    /// From the first bytes; the name of a file proves nothing.
    fn sniff(bytes: &[u8]) -> Result<Self> {
        match bytes {
            [] => Err(photo("the file is empty")),
            [0xFF, 0xD8, 0xFF, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Ok(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            _ => Err(photo(format!("expected JPEG, PNG or WebP; found {}", describe(bytes)))),
        }
    }

    fn error(self, error: &ImageError) -> Error {
        let name = match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
        };
        match error {
            ImageError::Limits(error) => photo(format!("{name} beyond the limits: {error}")),
            ImageError::IoError(_) => photo(format!("the {name} is truncated or damaged: {error}")),
            _ => photo(format!("damaged {name}: {error}")),
        }
    }
}

/// A few words about bytes that are none of the formats, for a person who wonders why.
fn describe(bytes: &[u8]) -> String {
    let known: [(&[u8], &str); 8] = [
        (b"GIF8", "GIF"),
        (b"BM", "BMP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"%PDF", "PDF"),
        (b"PK\x03\x04", "a zip file"),
        (b"<?xml", "XML"),
        (b"<!DOCTYPE", "a web page"),
    ];
    if let Some((_, name)) = known.iter().find(|(start, _)| bytes.starts_with(start)) {
        return (*name).to_owned();
    }
    if let Some(brand) = bytes.get(4..12).and_then(|bytes| bytes.strip_prefix(b"ftyp")) {
        return format!("a {} container", brand.escape_ascii());
    }
    let start = &bytes[..bytes.len().min(256)];
    if start.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7E)) {
        return "text".to_owned();
    }
    format!("{} bytes that start with {:02x?}", bytes.len(), &start[..start.len().min(4)])
}

/// Refuses by what the header says. `work_bytes` a pixel is what the decoder needs beside its output.
fn check_size(decoder: &impl ImageDecoder, work_bytes: u64, limits: &Limits) -> Result<()> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(photo(format!("{width} x {height} px: no pixels")));
    }
    let side = width.max(height);
    if side > limits.side_px_max {
        let max = limits.side_px_max;
        return Err(photo(format!("{width} x {height} px: longer than {max} px on a side")));
    }
    // Two RGB copies live at once while a photo is turned upright.
    let pixel_bytes = u64::from(decoder.color_type().bytes_per_pixel()).max(3) + 3 + work_bytes;
    let needed = u64::from(width) * u64::from(height) * pixel_bytes;
    if needed > limits.decode_bytes_max {
        let (needed, max) = (needed >> 20, limits.decode_bytes_max >> 20);
        return Err(photo(format!("{width} x {height} px: decoding takes {needed} MiB, at most {max} MiB allowed")));
    }
    Ok(())
}

fn decoder_limits(limits: &Limits) -> image::Limits {
    let mut decoder_limits = image::Limits::no_limits();
    decoder_limits.max_image_width = Some(limits.side_px_max);
    decoder_limits.max_image_height = Some(limits.side_px_max);
    decoder_limits.max_alloc = Some(limits.decode_bytes_max);
    decoder_limits
}

fn read(format: Format, mut decoder: impl ImageDecoder, limits: &Limits) -> Result<Photo> {
    decoder.set_limits(decoder_limits(limits)).map_err(|error| format.error(&error))?;
    // Damaged metadata is no reason to lose a photo whose pixels are whole.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(|error| format.error(&error))?;
    let mut upright = DynamicImage::ImageRgb8(to_rgb(decoded));
    upright.apply_orientation(orientation);
    let upright = upright.into_rgb8();
    let (width, height) = upright.dimensions();
    Photo::from_rgb(width, height, upright.into_raw())
}

fn to_rgb(decoded: DynamicImage) -> image::RgbImage {
    if !decoded.color().has_alpha() {
        return decoded.into_rgb8();
    }
    let rgba = decoded.into_rgba8();
    let (width, height) = rgba.dimensions();
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    for [red, green, blue, alpha] in rgba.into_raw().as_chunks::<4>().0 {
        rgb.extend([red, green, blue].map(|value| over_white(*value, *alpha)));
    }
    image::RgbImage::from_raw(width, height, rgb).expect("three bytes were pushed for each pixel")
}

fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

fn photo(what: impl Into<String>) -> Error {
    Error::Photo { what: what.into() }
}
