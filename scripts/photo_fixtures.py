"""Writes tests/data/formats: one small picture in every way that a photo can be stored.

    pip install pillow numpy
    python scripts/photo_fixtures.py tests/data/formats

Upright, the picture is 48 x 32: red and green above, blue and grey below.
"""

import pathlib
import struct
import sys
import zlib

import numpy as np
from PIL import Image

COLORS = [(220, 40, 40), (40, 180, 60), (40, 60, 200), (180, 180, 180)]
# EXIF orientation -> what turns the upright picture into the stored one.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def picture():
    pixels = np.zeros((32, 48, 3), np.uint8)
    for i, color in enumerate(COLORS):
        y, x = divmod(i, 2)
        pixels[y * 16:y * 16 + 16, x * 24:x * 24 + 24] = color
    return Image.fromarray(pixels)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def main(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    upright = picture()
    for orientation, transpose in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright.transpose(transpose).save(folder / f"orientation-{orientation}.jpg", quality=95, subsampling=0, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(STORED[6]).save(folder / "orientation-6.png", exif=exif)
    upright.transpose(STORED[6]).save(folder / "orientation-6.webp", lossless=True, exif=exif)
    upright.save(folder / "baseline.jpg", quality=95, subsampling=2)
    upright.save(folder / "progressive.jpg", quality=95, progressive=True)
    upright.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    upright.save(folder / "rgb.png")
    upright.quantize(8).save(folder / "palette.png")
    upright.save(folder / "lossy.webp", quality=95)
    upright.save(folder / "lossless.webp", lossless=True)
    # 16 bits a sample, by hand: Pillow writes none in colour.
    samples = np.asarray(upright).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", 48, 32, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (folder / "sixteen-bit.png").write_bytes(png)
    # A green second frame that must not be seen.
    second = Image.new("RGB", (48, 32), (0, 255, 0))
    upright.save(folder / "animated.png", save_all=True, append_images=[second], duration=100)
    upright.save(folder / "animated.webp", save_all=True, append_images=[second], duration=100, lossless=True)
    # Transparent pixels are black below; over white they are white. Half-transparent red becomes pink.
    clear = np.zeros((32, 48, 4), np.uint8)
    clear[:, 24:] = (255, 0, 0, 128)
    Image.fromarray(clear).save(folder / "transparent.png")
    Image.fromarray(clear).save(folder / "transparent.webp", lossless=True, exact=True)
    grey = upright.convert("L")
    grey.save(folder / "grey.jpg", quality=95)
    grey.save(folder / "grey.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
