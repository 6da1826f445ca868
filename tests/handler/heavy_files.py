"""Image files that are small and take long to decode, or hold more beside their pixels than pixels."""

import io
import struct
import zlib

from PIL import Image

from tests.handler.samples import IMAGE, encode


def png_chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_with(extra: bytes, image: bytes, *, behind_pixels: bool = False) -> bytes:
    """Put chunks behind the header, or behind the pixels."""
    at = image.rindex(b"IEND") - 4 if behind_pixels else 33
    return image[:at] + extra + image[at:]


def png_in_pieces(image: bytes, size: int, *, empty: int = 0) -> bytes:
    """Write the pixels again in chunks of `size` bytes, behind `empty` chunks of none."""
    start = image.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", image, start)
    data = image[start + 8 : start + 8 + length]
    pieces = b"".join(png_chunk(b"IDAT", data[at : at + size]) for at in range(0, length, size))
    return image[:start] + png_chunk(b"IDAT") * empty + pieces + image[start + 12 + length :]


def png_of_zeros(width: int, height: int, *, depth: int = 8, colour: int = 6) -> bytes:
    """A PNG of any size and depth in a few kilobytes; Paeth's filter, the slowest."""
    row = b"\4" + bytes(width * {0: 1, 2: 3, 4: 2, 6: 4}[colour] * depth // 8)
    packer = zlib.compressobj(9)
    rows = 1 + 1_000_000 // len(row)  # at once
    packed = b"".join(packer.compress(row * min(rows, height - at)) for at in range(0, height, rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND")


def jpeg_segment(marker: int, content: bytes = b"") -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def jpeg_with(extra: bytes, image: bytes) -> bytes:
    """Put segments behind the start of the file."""
    return image[:2] + extra + image[2:]


def jpeg_of_scans(size: tuple[int, int], scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are `scans` of them."""
    image = Image.fromarray(IMAGE).resize(size) if size == (32, 32) else Image.new("L", size, 90)
    file = encode(image, "JPEG", progressive=True)
    last = file.rindex(b"\xff\xda")
    scan = file[last:-2]  # a refinement
    return file[:last] + scan * (scans - file[:last].count(b"\xff\xda")) + b"\xff\xd9"


def exif_of(orientation: int, order: str = ">", *, kind: int = 3) -> bytes:
    """A TIFF header with one tag."""
    value = struct.pack(f"{order}{'H' if kind == 3 else 'I'}", orientation).ljust(4, b"\0")
    start = b"MM\0*" if order == ">" else b"II*\0"
    return start + struct.pack(f"{order}IHHHI", 8, 1, 0x0112, kind, 1) + value + bytes(4)


def exif_of_copies() -> bytes:
    """64 KB of Exif in which each of 5,000 tags claims all of it: 0.3 GB to a parser that copies."""
    tags = b"".join(struct.pack(">HHII", 1 + number, 7, 60_000, 8) for number in range(5000))
    return b"MM\0*" + struct.pack(">IH", 8, 5000) + tags + bytes(4)


def as_read(image: bytes) -> Image.Image:
    return Image.open(io.BytesIO(image))
