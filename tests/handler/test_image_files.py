"""What image files cost is known before they are decoded, and what is not pixels changes nothing."""

import os
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from bad_input import BadInput
from benchmarks.fuzz_bodies import PYTHON_INSIDES
from image_files import MAX_CHUNKS, MAX_SCANS, MAX_SEGMENTS
from pictures import MAX_PIXELS, decode_counted, decode_picture, to_model_input
from tests.handler.heavy_files import (
    as_read,
    exif_of,
    exif_of_copies,
    jpeg_of_scans,
    jpeg_segment,
    jpeg_with,
    png_chunk,
    png_in_pieces,
    png_of_zeros,
    png_with,
)
from tests.handler.samples import IMAGE, JPEG, PNG, encode

# A second of a worker's time is what nothing may take; everything here was measured to take less than 0.4 s.
MOST_S = 1.0
NOISE = np.random.default_rng(3).integers(0, 256, (48, 40, 3), dtype=np.uint8)
BOMB = zlib.compress(bytes(10_000_000), 9)
MEGABYTES = os.urandom(2_000_000).hex().encode()


def refusal_of(image: bytes, max_pixels: int = MAX_PIXELS) -> BadInput:
    started = time.process_time()
    with pytest.raises(BadInput) as caught:
        decode_counted(bytearray(image), max_pixels)
    assert time.process_time() - started < MOST_S / 4, "rejected only after the work was done"
    return caught.value


# Work ----------------------------------------------------------------------------------------------------------------

TOO_MUCH = {
    "5,000 scans of a small image": lambda: jpeg_of_scans((32, 32), 5000),
    "5,000 scans of a large image": lambda: jpeg_of_scans((4096, 4096), 5000),
    "one scan too many": lambda: jpeg_of_scans((32, 32), MAX_SCANS + 1),
    "60 scans of 16 megapixels": lambda: jpeg_of_scans((4096, 4096), 60),
    "a million comments": lambda: jpeg_with(b"\xff\xfe\0\2" * 1_000_000, JPEG),
    "tables without end": lambda: jpeg_with(jpeg_segment(0xDB, bytes([0]) + bytes([1] * 64)) * 5000, JPEG),
    "500,000 chunks": lambda: png_with(png_chunk(b"abCd") * 500_000, PNG),
    "500,000 chunks behind the pixels": lambda: png_with(png_chunk(b"tEXt") * 500_000, PNG, behind_pixels=True),
    "500,000 empty chunks of pixels": lambda: png_in_pieces(PNG, 100, empty=500_000),
    "16 bits a channel, 16 megapixels": lambda: png_of_zeros(4096, 4096, depth=16),
    "16 bits a channel, 12 megapixels": lambda: png_of_zeros(4096, 3072, depth=16, colour=2),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_work_is_counted_before_it_is_done(name):
    rejection = refusal_of(TOO_MUCH[name]())
    assert (rejection.code, rejection.status) == ("too_much_work", 413)


TOO_LARGE = {"a row": (MAX_PIXELS, 1), "a column": (1, MAX_PIXELS), "a long strip": (65_536, 16)}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_side_is_bounded_as_the_pixels_are(name):
    rejection = refusal_of(png_of_zeros(*TOO_LARGE[name], colour=0))
    assert (rejection.code, rejection.status) == ("picture_too_large", 413)
    assert "65,535" in rejection.message


WORST = {
    "16 megapixels with transparency": lambda: png_of_zeros(4096, 4096),
    "a column with transparency": lambda: png_of_zeros(256, 65_535),
    "8 megapixels of 16 bits": lambda: png_of_zeros(4096, 2048, depth=16),
    "20 scans of 16 megapixels": lambda: jpeg_of_scans((4096, 4096), 20),
    "100 scans of 3 megapixels": lambda: jpeg_of_scans((2048, 1600), MAX_SCANS),
    "1,000 tables": lambda: jpeg_with(jpeg_segment(0xDB, (bytes([0]) + bytes([1] * 64)) * 4) * 900, JPEG),
    "6 MB of fill bytes in the pixels": lambda: JPEG[:700] + b"\xff" * 6_000_000 + JPEG[700:],
    "6 MB of fill bytes before a marker": lambda: jpeg_with(b"\xff" * 6_000_000, JPEG),
    "6 MB of restart markers before a segment": lambda: jpeg_with(b"\xff\xd0" * 3_000_000, JPEG),
    "6 MB of comments behind the first scan": lambda: JPEG[:-2] + b"\xff\xfe\0\2" * 1_500_000 + b"\xff\xd9",
    "6 MB of Exif": lambda: jpeg_with(jpeg_segment(0xE1, b"Exif\0\0" + exif_of_copies()) * 100, JPEG),
    "Exif that points at itself, PNG": lambda: png_with(png_chunk(b"eXIf", exif_of_copies()) * 100, PNG),
    "packed text of 6 GB": lambda: png_with(png_chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB) * 600, PNG),
    "a packed profile of 1 GB": lambda: png_with(png_chunk(b"iCCP", b"x\0\0" + BOMB) * 100, PNG),
    "16,000 chunks": lambda: png_with(png_chunk(b"abCd") * (MAX_CHUNKS - 10), PNG),
    "1,000 segments": lambda: jpeg_with(jpeg_segment(0xC4, b"\0" * 17) * (MAX_SEGMENTS - 20), JPEG),
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_that_is_taken_is_done_within_a_second(name):
    image = WORST[name]()
    assert len(image) < 6_553_500
    started = time.process_time()
    try:
        assert decode_picture(bytearray(image)).shape == (32, 32, 3)  # as TorchServe hands it over
    except BadInput as rejection:
        assert rejection.code == "unreadable_picture"
    assert time.process_time() - started < MOST_S


def test_scans_of_usual_encoders_are_taken_at_the_size_of_a_telephones_photograph():
    for mode in ("L", "RGB"):
        photograph = encode(
            Image.new(mode, (4000, 3000), 90 if mode == "L" else (90, 90, 90)), "JPEG", progressive=True
        )
        assert np.abs(decode_picture(photograph).astype(int) - 90).max() < 3


def test_several_pictures_share_what_a_request_may_cost():
    image = jpeg_of_scans((1024, 1024), 40)
    _image, spent = decode_counted(image, MAX_PIXELS)
    assert spent == 2 * 1024 * 1024
    assert refusal_of(image, spent - 1).code == "too_much_work"
    assert refusal_of(image, 1024).code == "picture_too_large"


SMALL = {
    "one column": lambda: png_of_zeros(1, 65_535),
    "one row": lambda: png_of_zeros(65_535, 1),
    "pixels of 16 bits": lambda: png_of_zeros(256, 256, depth=16),
    "100 scans": lambda: jpeg_of_scans((64, 64), MAX_SCANS),
    "20 scans": lambda: jpeg_of_scans((256, 256), 20),
    "300 tables": lambda: jpeg_with(jpeg_segment(0xDB, bytes([0]) + bytes([1] * 64)) * 300, JPEG),
    "16,000 chunks": lambda: png_with(png_chunk(b"abCd") * 16_000, PNG),
}


@pytest.mark.parametrize("name", SMALL)
def test_256_files_together_are_done_within_a_second(name):
    """What is small in one file, and taken as often as the budget allows."""
    image = bytearray(SMALL[name]())
    left = MAX_PIXELS
    started = time.process_time()
    for _ in range(256):
        try:
            left -= decode_counted(image, left)[1]
        except BadInput as rejection:
            assert rejection.code in ("too_much_work", "picture_too_large")
            break
    assert time.process_time() - started < MOST_S


@pytest.mark.parametrize("marker", [0xC3, 0xC9, 0xCA], ids=["lossless", "arithmetic", "arithmetic, progressive"])
def test_a_jpeg_that_browsers_do_not_decode_is_named(marker):
    rejection = refusal_of(JPEG.replace(b"\xff\xc0", bytes((0xFF, marker)), 1))
    assert rejection.code == "unsupported_picture"
    assert "baseline or progressive" in rejection.message


# Metadata ------------------------------------------------------------------------------------------------------------

METADATA = {
    "text of 4 MB, packed": lambda: png_with(png_chunk(b"zTXt", b"note\0\0" + zlib.compress(MEGABYTES)), PNG),
    "text that unpacks to 10 MB": lambda: png_with(png_chunk(b"zTXt", b"note\0\0" + BOMB), PNG),
    "international text, packed": lambda: png_with(png_chunk(b"iTXt", b"note\0\1\0\0\0" + BOMB), PNG),
    "international text behind the pixels": lambda: png_with(
        png_chunk(b"iTXt", b"note\0\1\0\0\0" + BOMB), PNG, behind_pixels=True
    ),
    "a profile that unpacks to 10 MB": lambda: png_with(png_chunk(b"iCCP", b"icc\0\0" + BOMB), PNG),
    "a profile that is none": lambda: png_with(png_chunk(b"iCCP", b"icc\0\7nonsense"), PNG),
    "a text chunk with a wrong check sum": lambda: png_with(png_chunk(b"tEXt", b"a\0b")[:-4] + b"1234", PNG),
    "Exif of ImageMagick that is none": lambda: png_with(png_chunk(b"tEXt", b"Raw profile type exif\0\nxyz"), PNG),
    "pixels in pieces of one byte": lambda: png_in_pieces(PNG, 1),
    "an unknown chunk": lambda: png_with(png_chunk(b"teSt", b"x" * 5), PNG),
}


@pytest.mark.parametrize("name", METADATA)
def test_what_is_no_pixel_changes_nothing(name):
    assert np.array_equal(decode_picture(bytearray(METADATA[name]())), IMAGE)


def test_segments_that_are_no_pixels_change_nothing():
    profile = b"".join(jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 90)) + bytes(60_000)) for n in range(1, 90))
    preview = jpeg_segment(0xED, b"Photoshop 3.0\0" + b"8BIM" * 1000) + jpeg_segment(0xE2, b"MPF\0" + b"\xff" * 90)
    assert np.array_equal(decode_picture(jpeg_with(profile + preview, JPEG)), decode_picture(JPEG))


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L", "YCbCr"])
def test_colours_are_those_that_pillow_reads(mode):
    """Adobe's segment says which colours the numbers are, and is kept."""
    image = encode(Image.fromarray(IMAGE).convert(mode), "JPEG", quality=90)
    assert np.array_equal(decode_picture(image), np.asarray(as_read(image).convert("RGB")))


# Orientation ---------------------------------------------------------------------------------------------------------


def profile_of(exif: bytes) -> bytes:
    """Exif as ImageMagick writes it into text chunks."""
    return f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()


def xmp_of(orientation: int) -> bytes:
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


PLACES = {
    "PNG, eXIf": lambda n, png, jpeg: png_with(png_chunk(b"eXIf", exif_of(n)), png),
    "PNG, eXIf behind the pixels": lambda n, png, jpeg: png_with(
        png_chunk(b"eXIf", exif_of(n, "<")), png, behind_pixels=True
    ),
    "PNG, ImageMagick": lambda n, png, jpeg: png_with(
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile_of(b"Exif\0\0" + exif_of(n)))), png
    ),
    "PNG, ImageMagick, not packed": lambda n, png, jpeg: png_with(
        png_chunk(b"tEXt", b"Raw profile type exif\0" + profile_of(b"Exif\0\0" + exif_of(n, "<"))), png
    ),
    "PNG, XMP": lambda n, png, jpeg: png_with(
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_of(n)), png
    ),
    "PNG, XMP, packed": lambda n, png, jpeg: png_with(
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0de\0\0" + zlib.compress(xmp_of(n))), png
    ),
    "JPEG, Exif": lambda n, png, jpeg: jpeg_with(jpeg_segment(0xE1, b"Exif\0\0" + exif_of(n)), jpeg),
    "JPEG, Exif of Intel's order": lambda n, png, jpeg: jpeg_with(
        jpeg_segment(0xE1, b"Exif\0\0" + exif_of(n, "<")), jpeg
    ),
    "JPEG, a long integer": lambda n, png, jpeg: jpeg_with(
        jpeg_segment(0xE1, b"Exif\0\0" + exif_of(n, kind=4)), jpeg
    ),
    "JPEG, XMP": lambda n, png, jpeg: jpeg_with(
        jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp_of(n)), jpeg
    ),
    "JPEG, both": lambda n, png, jpeg: jpeg_with(
        jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp_of(1))
        + jpeg_segment(0xE1, b"Exif\0\0" + exif_of(n)),
        jpeg,
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_orientation_is_that_which_pillow_finds(place, orientation):
    image = PLACES[place](orientation, encode(Image.fromarray(IMAGE)), JPEG)
    expected = np.asarray(ImageOps.exif_transpose(as_read(image)).convert("RGB"))
    assert np.array_equal(decode_picture(bytearray(image)), expected)
    assert np.array_equal(to_model_input(as_read(image)), expected)


def test_a_picture_that_is_not_square_is_turned_after_it_is_shrunk():
    turned = encode(Image.fromarray(NOISE), exif=b"Exif\0\0" + exif_of(6))
    upright = encode(Image.fromarray(NOISE).transpose(Image.Transpose.ROTATE_270))
    assert np.abs(decode_picture(turned).astype(int) - decode_picture(upright)).max() == 0


# Messages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(PNG[:8] + b"\0" * 40, id="no header"),
        pytest.param(PNG[:29] + b"\0\0\0\0" + PNG[33:], id="wrong check sum"),
        pytest.param(PNG[:8] + png_chunk(b"IHDR", bytes(13)) + PNG[33:], id="of no size"),
        pytest.param(b"\xff\xd8\xff\xd9", id="a JPEG of nothing"),
        pytest.param(JPEG[:20], id="a JPEG's beginning"),
        pytest.param(b"\xff\xd8\xff\xe0" * 9, id="segments that run out"),
        pytest.param(JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), id="12 bits"),
    ],
)
def test_a_broken_file_is_told_of_without_the_insides_of_python(image):
    rejection = refusal_of(image)
    assert rejection.code == "unreadable_picture"
    assert PYTHON_INSIDES.search(rejection.message) is None
