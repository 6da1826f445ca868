"""Files of kinds that are not taken, each as its own library or a byte by byte reading of its format writes it.

Padded to N × 3,072 bytes where that leaves them files, so that by their length they could be raw pixels.
"""

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import torch
from PIL import Image

from tests.handler.samples import IMAGE, encode

PICTURE = Image.fromarray(IMAGE)


def padded(file: bytes) -> bytes:
    return file + bytes(-len(file) % 3072)


def _zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cat.raw", IMAGE.tobytes())
    return file.getvalue()


def _tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("cat.raw"), io.BytesIO())
    return file.getvalue()


def _saved_by_torch(*, new: bool) -> bytes:
    file = io.BytesIO()
    torch.save(torch.zeros(7), file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def _pickled(protocol: int) -> bytes:
    """A pickle of exactly 6,144 bytes: its end is looked at too."""
    text = "x" * 5000
    text += "x" * (6144 - len(pickle.dumps([text], protocol)))
    file = pickle.dumps([text], protocol)
    assert len(file) == 6144
    return file


def _safetensors() -> bytes:
    header = b'{"image":{"dtype":"U8","shape":[32,32,3],"data_offsets":[0,3072]}}'
    return struct.pack("<Q", len(header)) + header + IMAGE.tobytes()


def _isobmff(brand: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1miaf" + bytes(200)


PICTURES = {
    "GIF": encode(PICTURE, "GIF"),
    "TIFF": encode(PICTURE, "TIFF"),
    "TIFF, big-endian": encode(Image.new("I;16B", (32, 32)), "TIFF"),
    "BMP": encode(PICTURE, "BMP"),
    "BMP of a palette": encode(PICTURE.convert("P"), "BMP"),
    "ICO": encode(PICTURE, "ICO", sizes=[(32, 32)]),
    "ICO of bitmaps": encode(PICTURE, "ICO", sizes=[(32, 32)], bitmap_format="bmp"),
    "PPM": encode(PICTURE, "PPM"),
    "PGM": encode(PICTURE.convert("L"), "PPM"),
    "PPM with a comment": b"P6\n# by hand\n32 32\n255\n" + IMAGE.tobytes(),
    "WebP": encode(PICTURE, "WEBP"),
    "AVIF": _isobmff(b"avif"),
    "HEIC": _isobmff(b"heic"),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100),
    "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 32, 32, 8, 3) + IMAGE.tobytes(),
    "DDS": encode(PICTURE, "DDS"),
    "PDF": encode(PICTURE, "PDF"),
    "EPS": encode(PICTURE, "EPS"),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
}
OTHERS = {
    "ZIP": _zipped(),
    "torch.save": _saved_by_torch(new=True),
    "torch.save, old": _saved_by_torch(new=False),
    "gzip": gzip.compress(IMAGE.tobytes()),
    "gzip, fast": gzip.compress(IMAGE.tobytes(), 1),
    "bzip2": bz2.compress(IMAGE.tobytes()),
    "xz": lzma.compress(IMAGE.tobytes()),
    "tar": _tarred(),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(500),
    "safetensors": _safetensors(),
    "ONNX": b"\x08\x08\x12\x07pytorch\x1a\x052.4.0" + bytes(500),
    "MP4": struct.pack(">I", 24) + b"ftypisom" + bytes(500),
    "WAV": b"RIFF" + struct.pack("<I", 500) + b"WAVEfmt " + bytes(500),
    "HTML": b"<!DOCTYPE html><html>" + b" " * 500,
    "base64": b"iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAMK0lEQVR4" * 60,
}
WHOLE = {f"pickle of protocol {protocol}": _pickled(protocol) for protocol in (2, 3, 4, 5)}
"""What ends where the file ends, and so is not padded."""

_UNIT = IMAGE.astype(np.float64) / 255
_NORMALISED = (_UNIT - [0.4914, 0.4822, 0.4465]) / [0.247, 0.2435, 0.2616]
WIDE_NUMBERS = {
    "float32 in 0–1": _UNIT.astype("<f4"),
    "float32 in 0–255": IMAGE.astype("<f4"),
    "float32, normalised": _NORMALISED.astype("<f4"),
    "float32, big-endian": _UNIT.astype(">f4"),
    "float32, one colour": np.full((32, 32, 3), 0.5, "<f4"),
    "float32 of three images": np.stack([_UNIT] * 3).astype("<f4"),
    "float64 in 0–1": _UNIT,
    "float64 in 0–255": IMAGE.astype("<f8"),
    "float64, normalised": _NORMALISED,
    "float64, big-endian": _NORMALISED.astype(">f8"),
    "float16 in 0–1": _UNIT.astype("<f2"),
    "float16 in 0–255": IMAGE.astype("<f2"),
    "int64, numpy's own": IMAGE.astype("<i8"),
    "int32": IMAGE.astype("<i4"),
    "int16": IMAGE.astype("<i2"),
    "int32, big-endian": IMAGE.astype(">i4"),
}
"""Arrays whose bytes would be several images."""
