import io

import numpy as np
import pytest
from PIL import Image

from cifar.client import InputUnreadable
from cifar.client.image_inputs import ImageFile, list_files, open_input, read_array


@pytest.fixture
def save_array(tmp_path):
    def save(array, name="array.npy"):
        path = tmp_path / name
        np.save(path, array)
        return path

    return save


def read(path):
    return ImageFile(str(path), path).read()


def decode(image):
    with Image.open(io.BytesIO(image)) as image:
        image.load()
        return image


# Arrays


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_rows_of_an_array_are_named_by_their_place(save_array, dtype):
    path = save_array(np.zeros((3, 32, 32, 3), dtype), "cats.npy")
    pixels = read_array(path)
    assert pixels.names == (f"{path}[0]", f"{path}[1]", f"{path}[2]")
    assert pixels.images.shape == (3, 32, 32, 3)


def test_array_of_one_image_bears_the_files_name(save_array):
    path = save_array(np.full((32, 32, 3), 7, np.uint8))
    pixels = read_array(path)
    assert pixels.names == (str(path),)
    assert pixels.images.shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("shape", "mend"), [((3, 32, 32), "transpose(1, 2, 0)"), ((5, 3, 32, 32), "transpose(0, 2, 3, 1)")]
)
def test_channels_first_array_is_rejected_with_its_shape_and_the_remedy(save_array, shape, mend):
    array = np.zeros(shape, np.uint8)
    with pytest.raises(InputUnreadable) as caught:
        read_array(save_array(array))
    assert str(shape) in str(caught.value)
    assert mend in str(caught.value)
    axes = eval(mend.removeprefix("transpose"))
    assert array.transpose(axes).shape[-3:] == (32, 32, 3)


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (32, 32), (32, 32, 4), (2, 2, 32, 32, 3), (3072,), ()], ids=str)
def test_other_wrong_shape_is_rejected_with_what_came_and_what_is_expected(save_array, shape):
    with pytest.raises(InputUnreadable) as caught:
        read_array(save_array(np.zeros(shape, np.uint8)))
    assert f"shape {shape}, expected (32, 32, 3) or (N, 32, 32, 3)" in str(caught.value)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex64, "<U3"])
def test_wrong_type_of_numbers_is_rejected_by_name(save_array, dtype):
    with pytest.raises(InputUnreadable, match=f"type {np.dtype(dtype)}, expected uint8".replace("<", ".")):
        read_array(save_array(np.zeros((32, 32, 3), dtype)))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_json_cannot_say_are_rejected(save_array, number):
    images = np.zeros((2, 32, 32, 3))
    images[1, 2, 3, 0] = number
    with pytest.raises(InputUnreadable, match="not finite"):
        read_array(save_array(images))


def test_pickled_array_is_never_loaded(save_array, tmp_path):
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return trap.touch, ()

    path = save_array(np.array([Trap()], object))
    with pytest.raises(InputUnreadable, match="safely"):
        read_array(path)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "cut-header"])
def test_file_that_only_calls_itself_an_array_is_rejected(tmp_path, content):
    path = tmp_path / "fake.npy"
    path.write_bytes(content)
    with pytest.raises(InputUnreadable, match=r"fake\.npy: not an array"):
        read_array(path)


def test_array_cut_short_is_rejected(save_array):
    path = save_array(np.zeros((4, 32, 32, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputUnreadable):
        read_array(path)


def test_pieces_keep_names_images_and_scale_together(save_array):
    images = np.full((65, 32, 32, 3), 0.25)
    images[64] = 1  # alone, it would be taken for almost black in 0–255
    path = save_array(images)
    first, last = read_array(path).split()
    assert (len(first.names), first.names[0]) == (64, f"{path}[0]")
    assert last.names == (f"{path}[64]",)
    assert last.images.max() == 1
    assert (first.max_value, last.max_value) == (1, 1)


# Images


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG"])
def test_png_and_jpeg_are_not_touched_whatever_their_name(tmp_path, picture_format):
    path = tmp_path / "picture.dat"
    Image.new("RGB", (40, 30), "red").save(path, picture_format)
    assert read(path) == path.read_bytes()


@pytest.mark.parametrize("picture_format", ["BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_other_format_becomes_a_png_of_32_by_32(tmp_path, picture_format):
    path = tmp_path / "picture"
    options = {"lossless": True} if picture_format == "WEBP" else {}
    Image.new("RGB", (40, 30), (200, 30, 60)).save(path, picture_format, **options)
    sent = decode(read(path))
    assert (sent.format, sent.size, sent.mode) == ("PNG", (32, 32), "RGB")
    assert sent.getpixel((20, 15)) == (200, 30, 60)


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG"])
def test_picture_of_too_many_bytes_to_send_is_reduced(tmp_path, picture_format):
    path = tmp_path / "noise"
    noise = np.random.default_rng(0).integers(0, 256, (1200, 2400, 3), dtype=np.uint8)
    options = {"compress_level": 0} if picture_format == "PNG" else {"quality": 100, "subsampling": 0}
    Image.fromarray(noise).save(path, picture_format, **options)
    path.write_bytes(path.read_bytes() + bytes(3_000_000))
    assert path.stat().st_size > 6_553_500
    assert decode(read(path)).size == (32, 32)


def test_picture_of_more_bytes_than_any_has_is_rejected(tmp_path):
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(600_000_001)
    with pytest.raises(InputUnreadable, match=r"sparse\.png: more than 600,000,000 bytes"):
        read(path)


def test_animation_is_rejected_with_its_number_of_frames(tmp_path):
    path = tmp_path / "moving.gif"
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 100, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(InputUnreadable, match="3 images"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"Dear diary", b"%!PS-Adobe-3.0 EPSF-3.0\n"], ids=["empty", "text", "eps"])
def test_file_that_is_no_picture_is_rejected_with_what_would_be_read(tmp_path, content):
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(InputUnreadable, match=r"notes\.png: not an image \(PNG, JPEG"):
        read(path)


def test_damaged_picture_is_rejected(tmp_path):
    path = tmp_path / "cut.bmp"
    Image.new("RGB", (64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputUnreadable, match=r"cut\.bmp: cannot be read, truncated or broken"):
        read(path)


def test_file_that_vanished_is_told_in_words(tmp_path):
    with pytest.raises(InputUnreadable, match="No such file"):
        read(tmp_path / "gone.png")


# Paths


def test_folder_gives_its_pictures_and_arrays_by_name_at_any_depth(tmp_path):
    for name in ("b/z.JPG", "b/a.npy", "a.png", "notes.txt", "._a.png", "c.png/inner.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [file.relative_to(tmp_path).as_posix() for file in list_files(tmp_path)]
    assert found == ["a.png", "b/a.npy", "b/z.JPG", "c.png/inner.webp"]


def test_folder_without_pictures_says_so(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputUnreadable, match="holds no images"):
        list_files(tmp_path)


def test_missing_path_says_so(tmp_path):
    with pytest.raises(InputUnreadable, match="no such file"):
        list_files(tmp_path / "nowhere")


def test_named_file_is_taken_whatever_its_suffix(tmp_path):
    path = tmp_path / "picture"
    path.touch()
    assert list_files(path) == [path]


def test_picture_is_not_read_before_its_turn(tmp_path):
    path = tmp_path / "later.png"
    assert open_input(path) == ImageFile(str(path), path)
