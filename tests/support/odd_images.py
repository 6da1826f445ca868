"""Image files in which decoders disagree: what training, client and server must see alike."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

_RANDOM = np.random.default_rng(11)
_NOISE = _RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8)
_DEEP = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)
_ORIENTATION = 0x0112


def _noise(width: int = 32, height: int = 32, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(width * height + channels).integers(0, 256, shape, dtype=np.uint8)


def _photograph(width: int, height: int) -> Image.Image:
    """Smooth, as JPEG wants it, with edges that show how it was reduced."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(rows / step) * np.cos(columns / (step + 2)) for step in (3, 7, 19)]
    return Image.fromarray(np.stack(waves, axis=2).astype(np.uint8))


def _save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _turned(kind: str, orientation: int, **options: Any) -> bytes:
    image = Image.fromarray(_NOISE)
    exif = image.getexif()
    exif[_ORIENTATION] = orientation
    return _save(image, kind, exif=exif, **options)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _png(bits: int, colour_type: int, rows: list[bytes], *chunks: bytes) -> bytes:
    """A PNG of 32×32 that Pillow does not write."""
    header = struct.pack(">IIBBBBB", 32, 32, bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _deep_rows(channels: int) -> list[bytes]:
    deep = np.random.default_rng(channels).integers(0, 65536, (32, 32, channels), dtype=np.uint16)
    return [row.astype(">u2").tobytes() for row in deep]


def _grey_tiff(order: str, bits: int, pixels: bytes) -> bytes:
    """A TIFF of 32×32 that Pillow does not write; `order` is that of struct."""
    tags = {256: 32, 257: 32, 258: bits, 259: 1, 262: 1, 273: 110, 278: 32, 279: len(pixels)}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + struct.pack(f"{order}I", 0) + pixels


def _with_gamma() -> bytes:
    plain = _save(Image.fromarray(_NOISE))
    return plain[:33] + png_chunk(b"gAMA", struct.pack(">I", 100_000)) + plain[33:]


def _with_broken_exif() -> bytes:
    plain = _save(Image.fromarray(_NOISE))
    return plain[:33] + png_chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff" + bytes(9)) + plain[33:]


def _photograph_with_preview() -> bytes:
    return _save(_photograph(64, 48), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 12), "red")])


_GREY = Image.fromarray(_noise(channels=1))
_RGBA = Image.fromarray(_noise(channels=4), "RGBA")

# Taken by the server as they are.
SENT_AS_THEY_ARE: dict[str, bytes] = {
    "plain.png": _save(Image.fromarray(_NOISE)),
    "grey.png": _save(_GREY),
    "grey-16-bit.png": _save(Image.fromarray(_DEEP)),
    "grey-16-bit-transparent.png": _png(16, 0, _deep_rows(1), png_chunk(b"tRNS", b"\x12\x34")),
    "grey-and-alpha-16-bit.png": _png(16, 4, _deep_rows(2)),
    "colour-16-bit.png": _png(16, 2, _deep_rows(3)),
    "colour-and-alpha-16-bit.png": _png(16, 6, _deep_rows(4)),
    "one-bit.png": _save(_GREY.convert("1")),
    "one-bit-transparent.png": _save(_GREY.convert("1"), transparency=0),
    "two-bit.png": _png(2, 0, [bytes(_noise(8, 1, 1)[0]) for _ in range(32)]),
    "palette.png": _save(Image.fromarray(_NOISE).quantize(16)),
    "palette-transparent.png": _save(Image.fromarray(_NOISE).quantize(16), transparency=bytes(range(0, 256, 16))),
    "grey-and-alpha.png": _save(Image.fromarray(_noise(channels=2), "LA")),
    "colour-and-alpha.png": _save(_RGBA),
    "colour-key.png": _save(Image.fromarray(_NOISE // 128 * 255), transparency=(255, 0, 255)),
    "gamma.png": _with_gamma(),
    "exif-broken.png": _with_broken_exif(),
    "upside-down.png": _turned("PNG", 3),
    "grey.jpg": _save(_GREY, "JPEG"),
    "cmyk.jpg": _save(Image.fromarray(_noise(channels=4), "CMYK"), "JPEG"),
    "progressive.jpg": _save(_photograph(48, 48), "JPEG", progressive=True),
    **{f"orientation-{number}.jpg": _turned("JPEG", number) for number in range(2, 9)},
    "mpo.jpg": _photograph_with_preview(),
    "33x32.png": _save(Image.fromarray(_noise(33, 32))),
    "1x1.png": _save(Image.new("RGB", (1, 1), (10, 200, 30))),
    "500x3.png": _save(Image.fromarray(_noise(500, 3))),
    "palette-transparent-90x60.png": _save(Image.fromarray(_noise(90, 60)).quantize(8), transparency=2),
    "grey-16-bit-64x64.png": _save(Image.fromarray(np.kron(_DEEP, np.ones((2, 2), np.uint16)))),
    "photograph-300x200.jpg": _save(_photograph(300, 200), "JPEG"),
    "photograph-1600x1100.jpg": _save(_photograph(1600, 1100), "JPEG"),  # decoded at a fraction of its size
    "photograph-1600x1100.png": _save(_photograph(1600, 1100)),
}

# Converted by the client.
CONVERTED: dict[str, bytes] = {
    "plain.bmp": _save(Image.fromarray(_NOISE), "BMP"),
    "100x40.bmp": _save(Image.fromarray(_noise(100, 40)), "BMP"),
    "transparent.gif": _save(Image.fromarray(_NOISE).quantize(16), "GIF", transparency=3),
    "alpha.webp": _save(_RGBA, "WEBP", lossless=True, exact=True),
    "alpha-200x300.webp": _save(Image.fromarray(_noise(200, 300, 4), "RGBA"), "WEBP"),
    "turned.webp": _turned("WEBP", 6, lossless=True),
    "plain.tif": _save(Image.fromarray(_NOISE), "TIFF"),
    "turned.tif": _turned("TIFF", 6),
    "alpha.tif": _save(_RGBA, "TIFF"),
    "cmyk.tif": _save(Image.fromarray(_noise(channels=4), "CMYK"), "TIFF"),
    "grey-16-bit.tif": _save(Image.fromarray(_DEEP), "TIFF"),
    "grey-16-bit-big-endian.tif": _grey_tiff(">", 16, _DEEP.astype(">u2").tobytes()),
    "grey-16-bit.pgm": b"P5 32 32 65535\n" + _DEEP.astype(">u2").tobytes(),
    "plain.ppm": _save(Image.fromarray(_NOISE), "PPM"),
}

# Rejected by all, as nobody can tell what is meant: with a word of the reason.
_FRAMES = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
REJECTED: dict[str, tuple[bytes, str]] = {
    "animation.png": (_save(_FRAMES[0], save_all=True, append_images=_FRAMES[1:]), "3 frames"),
    "animation.gif": (_save(_FRAMES[0], "GIF", save_all=True, append_images=_FRAMES[1:]), "3 images"),
    "animation.webp": (_save(_FRAMES[0], "WEBP", save_all=True, append_images=_FRAMES[1:]), "3 images"),
    "pages.tif": (_save(_FRAMES[0], "TIFF", save_all=True, append_images=_FRAMES[1:]), "3 images"),
    "floats.tif": (_save(Image.fromarray(np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)), "TIFF"), "floats"),
    "integers.tif": (_save(Image.fromarray(_DEEP.astype(np.int32) * 9), "TIFF"), "32-bit integers"),
    "twelve-bit.tif": (_grey_tiff("<", 12, bytes(range(256)) * 6), "12-bit integers"),
    "truncated.png": (_save(Image.fromarray(_NOISE))[:-300], "truncated"),
    "truncated.jpg": (_save(_photograph(200, 200), "JPEG")[:-500], "truncated"),
    "truncated.bmp": (_save(Image.fromarray(_NOISE), "BMP")[:-300], "truncated"),
}
