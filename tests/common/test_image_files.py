"""One decoder: a file gives the same pixels to training, to a client and to the server."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bad_input import BadInput
from cifar.client.image_inputs import ImageFile
from cifar.common.errors import InputUnreadable
from cifar.common.image_files import UnreadableImage, decode_image_file
from cifar.common.project import class_names
from decoding import decode_request
from tests.support.odd_images import CONVERTED, REJECTED, SENT_AS_THEY_ARE, png_chunk
from training.errors import DataError
from training.image_folder import read_image_folder

ALL = SENT_AS_THEY_ARE | CONVERTED


def served(body: bytes) -> np.ndarray:
    """What the server's network gets, sent as the client sends it."""
    kind = "image/png" if body.startswith(b"\x89PNG") else "image/jpeg"
    images = decode_request(body, kind, {}).images
    assert len(images) == 1
    return np.asarray(images[0])


@pytest.fixture(scope="module")
def odd_tree(tmp_path_factory):
    """`train/cat` with every odd image, and a plain one wherever the source demands one."""
    from cifar.common.project import class_names

    root = tmp_path_factory.mktemp("odd")
    for part in ("train", "test"):
        for name in class_names():
            (root / part / name).mkdir(parents=True)
            (root / part / name / "plain.png").write_bytes(SENT_AS_THEY_ARE["plain.png"])
    for name, content in ALL.items():
        (root / "train" / "cat" / name).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def trained_on(odd_tree):
    from cifar.common.project import class_names

    images, labels = read_image_folder(odd_tree, class_names())["train"]
    return dict(zip(sorted(ALL), images[labels == class_names().index("cat")], strict=True))


@pytest.mark.parametrize("name", SENT_AS_THEY_ARE)
def test_training_sees_the_pixels_that_the_server_sees(trained_on, name):
    assert np.array_equal(trained_on[name], served(SENT_AS_THEY_ARE[name]))


@pytest.mark.parametrize("name", ALL)
def test_what_the_client_sends_gives_the_pixels_that_training_sees(odd_tree, trained_on, name):
    path = odd_tree / "train" / "cat" / name
    sent = ImageFile(name, path).read()
    assert (sent == ALL[name]) is (name in SENT_AS_THEY_ARE)
    assert np.array_equal(served(sent), trained_on[name])


@pytest.mark.parametrize(("name", "mean"), [("png", 127.5), ("tif", 127.5), ("pgm", 127.5)])
def test_deep_grey_keeps_its_brightness(trained_on, name, mean):
    assert trained_on[f"grey-16-bit.{name}"].mean() == pytest.approx(mean, abs=0.5)


def test_transparency_lies_over_white_in_every_format(trained_on):
    alpha = np.asarray(Image.open(io.BytesIO(ALL["colour-and-alpha.png"]))).astype(float)
    expected = alpha[..., :3] * alpha[..., 3:] / 255 + 255 - alpha[..., 3:]
    for name in ("colour-and-alpha.png", "alpha.webp", "alpha.tif"):
        assert np.abs(trained_on[name] - expected).max() <= 1


def test_a_file_is_turned_as_it_says_in_every_format(trained_on):
    plain = np.asarray(Image.open(io.BytesIO(ALL["plain.png"])))
    assert np.array_equal(trained_on["upside-down.png"], plain[::-1, ::-1])
    for name in ("turned.webp", "turned.tif"):
        assert np.array_equal(trained_on[name], np.rot90(plain, -1))


@pytest.mark.parametrize("name", REJECTED)
def test_what_could_only_be_guessed_is_rejected_by_training_client_and_server(odd_tree, tmp_path, name):
    content, reason = REJECTED[name]
    path = odd_tree / "train" / "dog" / name
    path.write_bytes(content)
    try:
        with pytest.raises(DataError, match=f"train/dog/{name}: .*{reason}"):
            read_image_folder(odd_tree, class_names())
        try:
            sent = ImageFile(name, path).read()
        except InputUnreadable as error:
            assert reason in str(error)
        else:
            with pytest.raises(BadInput, match=reason):
                served(sent)
    finally:
        path.unlink()


def white_png(width: int, height: int) -> bytes:
    """One bit a pixel, all set: small, however many pixels it has."""
    row = b"\0" + b"\xff" * (-(-width // 8))
    deflate = zlib.compressobj(9)
    pixels = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_file_of_more_pixels_than_a_request_may_have_is_reduced_by_the_same_rules(tmp_path):
    path = tmp_path / "wide.png"
    path.write_bytes(white_png(4097, 4096))
    sent = ImageFile("wide.png", path).read()
    assert np.array_equal(served(sent), decode_image_file(path.read_bytes()))
    assert (served(sent) == 255).all()


@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000)])
def test_a_file_of_absurdly_many_pixels_is_rejected_before_it_is_decoded(tmp_path, size):
    path = tmp_path / "bomb.ppm"
    path.write_bytes(b"P6 %d %d 255\n" % size)
    with pytest.raises(UnreadableImage, match="more than 89,478,485 pixels"):
        decode_image_file(path.read_bytes())
    with pytest.raises(InputUnreadable, match=r"bomb\.ppm: more than 89,478,485 pixels"):
        ImageFile("bomb.ppm", path).read()
