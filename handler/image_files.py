"""The structure of PNG and JPEG files: what decoding one will cost, known before it is spent, and what it needs of it.

Only chunks and segments are walked here; pixels are Pillow's. What does not change pixels, that is text, profiles,
previews and comments, is left out of what Pillow sees: its limits on metadata are then no limits on images, and its
parsers of metadata, which take seconds and gigabytes for some small files, are not reached.

PNG: https://www.w3.org/TR/png-3/, JPEG: https://www.w3.org/Graphics/JPEG/itu-t81.pdf
"""

import re
import struct
from typing import NamedTuple

from bad_input import BadInput
from orientation import orientation_of_exif, orientation_of_png_text, orientation_of_xmp

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

MAX_CHUNKS = 16_384  # of a PNG: a photograph of 6 MB has 800, as libpng writes it
MAX_SEGMENTS = 1024  # of a JPEG, before its pixels: 100 where it is full of profiles and previews
MAX_SCANS = 100  # encoders write 1 to 18
# A pixel of a PNG takes about 10 ns; one scan 0.6 ns a pixel at most; a row 60 ns, a chunk 0.6 µs, and a segment that
# tells tables 5 µs.
_SCANS_LIKE_ONE_PNG = 20
_PIXELS_LIKE_ONE_ROW = 8
_PIXELS_LIKE_ONE_CHUNK = 64
_PIXELS_LIKE_ONE_SEGMENT = 512

_Body = bytes | bytearray


class ImageFile(NamedTuple):
    """What is known of a file before its pixels are decoded.

    Attributes:
        kind: "PNG" or "JPEG".
        width: in pixels, as stored, that is before the orientation is applied.
        height: likewise.
        work: what decoding costs, in pixels of a usual PNG; at least the number of pixels.
        orientation: as Exif counts them, 1 (upright) to 8.
        data: the file without its metadata.
    """

    kind: str
    width: int
    height: int
    work: int
    orientation: int
    data: bytes


def read_image_file(body: _Body) -> ImageFile:
    """Walk one file, PNG or JPEG; which of the two is inferred from its first bytes.

    A file that ends too early is walked as far as it goes: whether pixels are missing shows when they are decoded.

    Raises:
        BadInput: animated, coded in a way that browsers do not decode either, or of more parts than encoders write.
        ValueError: no header with the size, or broken before it.
    """
    return _read_png(body) if body.startswith(PNG_SIGNATURE) else _read_jpeg(body)


def _too_many(what: str, most: int) -> BadInput:
    return BadInput(
        "too_much_work",
        f"The image has more than {most:,} {what}, expected at most that many: usual encoders write far fewer, and "
        "each takes time to decode. Open the image and save it again.",
    )


# PNG -----------------------------------------------------------------------------------------------------------------

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_HEADER_CHUNKS = (b"IHDR", b"PLTE", b"tRNS")  # what changes pixels; gAMA, iCCP and the like do not
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_END = b"\0\0\0\0" + struct.pack(">I4sI", 0, b"IEND", 0xAE426082)


def _read_png(body: _Body) -> ImageFile:
    headers: dict[bytes, _Body] = {}
    hints: dict[bytes, bytes] = {}  # of how it lies
    pixels: list[_Body] = []
    claimed = parts = 0
    position = len(PNG_SIGNATURE)
    while position + 8 <= len(body):
        parts += 1
        if parts > MAX_CHUNKS:
            raise _too_many("chunks", MAX_CHUNKS)
        length, name = struct.unpack_from(">I4s", body, position)
        start, end = position + 8, position + 12 + length
        if name == b"IDAT":
            pixels.append(body[start : end - 4])
            claimed += length
        elif name in _HEADER_CHUNKS and not pixels:
            headers.setdefault(name, body[position:end])
        elif name == b"acTL" and not pixels:
            _check_still(body[start : start + 4])
        elif name == b"eXIf" or (name in _TEXT_CHUNKS and body[start : start + 22].startswith(_TEXTS_WITH_ORIENTATION)):
            hints.setdefault(name, bytes(body[start : end - 4]))
        elif name == b"IEND":
            break
        position = end
    header = headers.get(b"IHDR", b"")
    if len(header) < 25:
        raise ValueError("it has no header")
    width, height, depth, colour = struct.unpack_from(">IIBB", header, 8)
    pixel_bytes = _CHANNELS.get(colour, 4) * depth / 8
    pixel_work = int(width * height * max(1.0, pixel_bytes / 4))
    work = max(pixel_work, height * _PIXELS_LIKE_ONE_ROW, parts * _PIXELS_LIKE_ONE_CHUNK)
    # Pixels in one chunk, where there may have been thousands. Pillow does not compare their check sums.
    data = [PNG_SIGNATURE, *headers.values(), struct.pack(">I4s", min(claimed, 2**31 - 1), b"IDAT"), *pixels]
    if claimed == sum(map(len, pixels)):
        data.append(_END)
    return ImageFile("PNG", width, height, work, _png_orientation(hints), b"".join(data))


def _check_still(frames: _Body) -> None:
    count = int.from_bytes(frames, "big")
    if 1 < count < 2**31:  # any other number makes it no animation
        raise BadInput(
            "animated_picture",
            f"The image is an animation of {count:,} frames, expected a still one. Send the frame that you mean.",
        )


# What ImageMagick and Adobe write instead of eXIf, or beside it.
_TEXTS_WITH_ORIENTATION = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")


def _png_orientation(hints: dict[bytes, bytes]) -> int:
    found = orientation_of_exif(hints.pop(b"eXIf", b""))
    for name, content in hints.items():
        found = found or orientation_of_png_text(name, content)
    return found or 1


# JPEG ----------------------------------------------------------------------------------------------------------------

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # that a segment with a length follows, save 0xd9
_SOS, _EOI, _DQT, _APP1, _APP14 = 0xDA, 0xD9, 0xDB, 0xE1, 0xEE
_METADATA = frozenset(range(0xE0, 0xFF)) - {_APP14}  # Adobe's says which colours the numbers are
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_USUAL_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; all with Huffman codes
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_MAX_QUANTIZATION_BYTES = 2 + 2 + 4 * (1 + 128)  # four tables, which is all there are


def _read_jpeg(body: _Body) -> ImageFile:
    segments, position = _walk_segments(body)
    frame = next((segment for marker, segment in segments if marker in _FRAMES), b"")
    if len(frame) < 9:
        raise ValueError("it has no header")
    _check_frame(frame[1])
    height, width = struct.unpack_from(">HH", frame, 5)
    exif = next(
        (bytes(segment[4:]) for marker, segment in segments if marker == _APP1 and segment.startswith(_EXIF, 4)), b""
    )
    xmp = next(
        (bytes(segment[4:]) for marker, segment in segments if marker == _APP1 and segment.startswith(_XMP, 4)), b""
    )
    # Of several frame headers the decoder must see the one whose size was read.
    kept = [
        segment
        for marker, segment in segments
        if marker not in _METADATA and (marker not in _FRAMES or segment is frame)
    ]
    if any(segment[1] == _DQT and len(segment) > _MAX_QUANTIZATION_BYTES for segment in kept):
        raise ValueError("it has more quantization tables than there can be")
    scans = body[position:]
    # In coded pixels these two bytes cannot stand. In a table behind the first scan they might, and count as one more.
    count = scans.count(b"\xff\xda")
    if count > MAX_SCANS:
        raise _too_many("scans", MAX_SCANS)
    pixel_work = max(width * height, width * height * count // _SCANS_LIKE_ONE_PNG)
    work = max(pixel_work, len(kept) * _PIXELS_LIKE_ONE_SEGMENT)
    orientation = orientation_of_exif(exif) or orientation_of_xmp(xmp) or 1
    return ImageFile("JPEG", width, height, work, orientation, b"".join((b"\xff\xd8", *kept, scans)))


def _walk_segments(body: _Body) -> tuple[list[tuple[int, _Body]], int]:
    """Return the segments before the first scan, each with its marker, and where that scan begins."""
    segments: list[tuple[int, _Body]] = []
    position = 2
    while True:
        found = _MARKER.search(body, position)
        if found is None or found.end() + 2 > len(body) or body[found.end() - 1] == _EOI:
            raise ValueError("it ends before its first scan")
        marker = body[found.end() - 1]
        if marker == _SOS:
            return segments, found.start()
        if len(segments) == MAX_SEGMENTS:
            raise _too_many("segments", MAX_SEGMENTS)
        position = found.end() + max(2, int.from_bytes(body[found.end() : found.end() + 2], "big"))
        segments.append((marker, body[found.start() : position]))


def _check_frame(marker: int) -> None:
    if marker not in _USUAL_FRAMES:
        raise BadInput(
            "unsupported_picture",
            "The JPEG file is coded arithmetically, losslessly or hierarchically, expected baseline or progressive "
            "JPEG, as cameras and browsers write it. Save it again, as such or as PNG.",
        )
