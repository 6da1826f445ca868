"""Files that are neither PNG, JPEG nor .npy, named by their first bytes.

A file whose length happens to be N × 3,072 bytes would else be taken for raw pixels and answered with nonsense. What is
listed here cannot be the beginning of a raw image but by a chance of one in 4 billion: shorter signatures are looked at
together with what must follow them.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

_Body = bytes | bytearray


class KnownFile(NamedTuple):
    """A kind of file.

    Attributes:
        name: with its article, as in "a GIF file".
        is_picture: whether converting it to PNG or JPEG would help.
    """

    name: str
    is_picture: bool


def find_known_file(body: _Body) -> KnownFile | None:
    """Name the file that this is, or None where it may be anything."""
    # Nearly every raw image is past by these few looks.
    if (
        bytes(body[:1]) not in _FIRST_BYTES
        and not body.endswith(_TGA_END)
        and body[8:10] != b'{"'
        and not _is_inside(body)
    ):
        return None
    name = next((name for start, name in _STARTS if body.startswith(start)), None)
    name = name or next((name for is_one, name in _CHECKS if is_one(body)), None)
    return KnownFile(name, is_picture=name in _PICTURES) if name is not None else None


_STARTS: tuple[tuple[bytes | tuple[bytes, ...], str], ...] = (
    ((b"GIF87a", b"GIF89a"), "a GIF file"),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "a TIFF file"),
    (b"8BPS\0", "a Photoshop file"),
    ((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "a JPEG 2000 file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (b"qoif", "a QOI file"),
    (b"v/1\1", "an OpenEXR file"),
    (b"DDS |", "a DDS file"),
    ((b"#?RADIANCE", b"#?RGBE"), "a Radiance file"),
    (b"\x59\xa6\x6a\x95", "a Sun raster file"),
    (b"SIMPLE  =", "a FITS file"),
    (b"gimp xcf", "a GIMP file"),
    ((b"<svg", b"<?xml"), "an SVG or XML file"),
    (b"%PDF-", "a PDF file"),
    (b"%!PS", "a PostScript file"),
    ((b"PK\3\4", b"PK\5\6", b"PK\7\x08"), "a ZIP archive (also what torch.save and numpy.savez write)"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\7", "a RAR archive"),
    (b"\x80\2\x8a\nl\xfc\x9cF\xf9", "a pickle of an old torch.save"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"CDF\1", "a NetCDF file"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1\0\0", "an Arrow file"),
    (b"Obj\1", "an Avro file"),
    (b"SQLite format 3\0", "an SQLite file"),
    (b"GGUF", "a GGUF file"),
    (b"\x7fELF", "an executable file"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office file"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM file"),
    ((b"OggS", b"fLaC", b"ID3\3", b"ID3\4"), "a sound file"),
    ((b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML"), "an HTML page"),
    ((b"data:image/", b"iVBORw0KGgo", b"/9j/4AAQ", b"/9j/4QA", b"R0lGODlh", b"R0lGODdh"), "base64 text"),
    (b"version https://git-lfs", "a pointer of Git LFS"),
)  # fmt: skip


def _is_bmp(body: _Body) -> bool:
    """`BM`, the reserved bytes, and a header of a length that there is."""
    size = int.from_bytes(body[14:18], "little")
    return body.startswith(b"BM") and body[6:10] == b"\0\0\0\0" and size in (12, 16, 40, 52, 56, 64, 108, 124)


def _is_icon(body: _Body) -> bool:
    """Its first entry points behind the entries, at an image that ends within the file."""
    if body[:3] != b"\0\0\1" and body[:3] != b"\0\0\2":
        return False
    count = int.from_bytes(body[4:6], "little")
    size, start = int.from_bytes(body[14:18], "little"), int.from_bytes(body[18:22], "little")
    first = (b"\x89PNG", b"\x28\0\0\0")  # what an entry points at: a PNG, or the header of a bitmap
    return body[3:4] == b"\0" and 6 + 16 * count <= start <= len(body) - size and body[start : start + 4] in first


def _is_riff(body: _Body, kind: bytes) -> bool:
    return body.startswith(b"RIFF") and body[8:12] == kind


def _is_isobmff(body: _Body, *brands: bytes) -> bool:
    return body[:2] == b"\0\0" and body[4:8] == b"ftyp" and (not brands or body[8:12] in brands)


def _is_gzip(body: _Body) -> bool:
    """Its method, no reserved flag, and a known level of compression."""
    return body.startswith(b"\x1f\x8b\x08") and body[3:4] < b"\x20" and body[8:9] in (b"\0", b"\2", b"\4")


def _is_pickle(body: _Body) -> bool:
    """A protocol, an opcode with which pickles begin, and the full stop with which they end."""
    known = body[:1] == b"\x80" and body[1:2] in (b"\2", b"\3", b"\4", b"\5")
    return known and body[2:3] in b"\x95]}()cX\x8a\x8c" and len(body) > 2 and body.endswith(b".")


def _is_safetensors(body: _Body) -> bool:
    return body[8:10] == b'{"' and int.from_bytes(body[:8], "little") <= len(body) - 8


def _is_onnx(body: _Body) -> bool:
    """The version of its format, and the name of its producer behind its length."""
    length = int.from_bytes(body[3:4])
    producer = bytes(body[4 : 4 + length])
    return body[:1] == b"\x08" and body[2:3] == b"\x12" and length > 3 and _PRODUCER.fullmatch(producer) is not None


def _is_inside(body: _Body) -> bool:
    return body[128:132] == b"DICM" or body[257:262] == b"ustar"


_TGA_END = b"TRUEVISION-XFILE.\0"
_NETPBM = re.compile(rb"P[1-6]\s(?:\s|#[^\n]{0,200}\n){0,20}\d{1,5}\s+\d{1,5}\s|P7\nWIDTH|P[Ff]\n\d{1,5} \d{1,5}\n")
_PRODUCER = re.compile(rb"[A-Za-z][A-Za-z0-9 ._-]+")
_CHECKS: tuple[tuple[Callable[[_Body], bool], str], ...] = (
    (_is_bmp, "a BMP file"),
    (_is_icon, "an icon file"),
    (lambda body: _NETPBM.match(body) is not None, "a PPM, PGM or PBM file"),
    (lambda body: _is_riff(body, b"WEBP"), "a WebP file"),
    (lambda body: _is_riff(body, b"WAVE") or _is_riff(body, b"AVI "), "a WAV or AVI file"),
    (lambda body: _is_isobmff(body, b"avif", b"avis"), "an AVIF file"),
    (lambda body: _is_isobmff(body, b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"), "a HEIC file"),
    (_is_isobmff, "an MP4 or QuickTime file"),
    (lambda body: body.endswith(_TGA_END), "a TGA file"),
    (lambda body: body.startswith(b"icns") and int.from_bytes(body[4:8]) == len(body), "an icon file"),
    (lambda body: body[128:132] == b"DICM", "a DICOM file"),
    (lambda body: body[:3] == b"BZh" and body[4:10] == b"1AY&SY", "a bzip2 file"),
    (_is_gzip, "a gzip file"),
    (lambda body: body[257:262] == b"ustar", "a tar archive"),
    (_is_pickle, "a pickle of Python"),
    (_is_safetensors, "a safetensors file"),
    (_is_onnx, "an ONNX file"),
)  # fmt: skip

_PICTURES = frozenset(
    f"{name} file"
    for name in (
        "a GIF", "a TIFF", "a Photoshop", "a JPEG 2000", "a JPEG XL", "a QOI", "an OpenEXR", "a DDS", "a Radiance",
        "a Sun raster", "a FITS", "a GIMP", "an SVG or XML", "a BMP", "an icon", "a PPM, PGM or PBM", "a WebP",
        "an AVIF", "a HEIC", "a TGA", "a DICOM", "a PDF", "a PostScript",
    )
)  # fmt: skip

_CHECKED_STARTS = (b"BM", b"\0\0", b"P", b"RIFF", b"icns", b"BZh", b"\x1f\x8b", b"\x80", b"\x08")
_FIRST_BYTES = frozenset(
    start[:1]
    for starts in (*(starts for starts, _name in _STARTS), _CHECKED_STARTS)
    for start in (starts if isinstance(starts, tuple) else (starts,))
)
