import sys

import numpy as np
import pytest

from cifar.client import InputUnreadable, samples
from cifar.client.samples import (
    SampleSource,
    choose_samples,
    prepare_test_set,
    read_drawings,
    read_test_set,
)

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def test_set(tmp_path):
    """Forty images, filled with their own place; the labels run backwards from 9."""
    path = tmp_path / "cifar10.npz"
    images = np.zeros((40, 32, 32, 3), np.uint8) + np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    labels = 9 - np.arange(40) % 10
    np.savez(path, test_images=images, test_labels=labels)
    return path


def stand_in_for_training(monkeypatch, tmp_path, code):
    """Make `python -m training.data` run this code."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    (tmp_path / "training" / "data.py").write_text(code)
    monkeypatch.setattr(samples, "ROOT", tmp_path)


def test_test_set_gives_the_first_image_of_each_class_by_its_place(test_set):
    pixels = read_test_set(test_set)
    assert pixels.names[:2] == ("test[9] (airplane)", "test[8] (automobile)")
    assert pixels.images[:, 0, 0, 0].tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_test_set_is_chosen_where_it_is_present(test_set):
    chosen = choose_samples(SampleSource.AUTO, test_set)
    assert chosen.pixels.names[9] == "test[0] (truck)"
    assert chosen.note is None


def test_drawings_stand_in_for_a_missing_test_set_and_say_so(tmp_path):
    chosen = choose_samples(SampleSource.AUTO, tmp_path / "missing.npz")
    assert chosen.pixels.names[0] == "drawing (airplane)"
    assert chosen.note is not None
    assert "not photographs" in chosen.note
    assert "make data" in chosen.note


def test_drawings_are_one_a_class_and_have_the_contrast_of_photographs():
    drawings = read_drawings()
    assert drawings.names == tuple(f"drawing ({name})" for name in NAMES)
    assert drawings.images.shape == (10, 32, 32, 3)
    assert drawings.images.dtype == np.uint8
    assert len({image.tobytes() for image in drawings.images}) == 10
    for image in drawings.images:
        assert 60 < image.mean() < 200
        assert image.std() > 25


def test_drawings_can_be_asked_for_where_the_test_set_is_present(test_set):
    assert choose_samples(SampleSource.DRAWN, test_set).note is not None


def test_missing_test_set_is_made_when_it_is_asked_for(monkeypatch, tmp_path, test_set, capfd):
    made = tmp_path / "made.npz"
    code = f"import shutil; print('downloading'); shutil.copy({str(test_set)!r}, {str(made)!r})"
    stand_in_for_training(monkeypatch, tmp_path, code)
    assert choose_samples(SampleSource.TEST_SET, made).note is None
    out, err = capfd.readouterr()
    assert (out, "downloading" in err) == ("", True)


@pytest.mark.parametrize("code", ["import sys; sys.exit(3)", "import no_such_package", "pass"])
def test_failure_to_make_the_test_set_tells_the_ways_out(monkeypatch, tmp_path, code):
    stand_in_for_training(monkeypatch, tmp_path, code)
    with pytest.raises(InputUnreadable, match=r"pip install -e \.\[training\]") as caught:
        prepare_test_set(tmp_path / "never.npz")
    assert "make data" in str(caught.value)


def test_present_test_set_is_not_made_again(monkeypatch, tmp_path, test_set):
    stand_in_for_training(monkeypatch, tmp_path, "import sys; sys.exit(3)")
    assert choose_samples(SampleSource.TEST_SET, test_set).note is None


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": np.zeros(1)},
        {"test_images": np.zeros((1, 32, 32, 3), np.uint8), "test_labels": np.zeros(1)},
        {"test_images": np.array([{}], object), "test_labels": np.zeros(1)},
    ],
    ids=["other-keys", "one-class", "pickled"],
)
def test_test_set_of_another_shape_is_rejected_with_the_remedy(tmp_path, arrays):
    path = tmp_path / "other.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputUnreadable, match="make data"):
        read_test_set(path)


def test_test_set_cut_short_is_rejected(test_set):
    test_set.write_bytes(test_set.read_bytes()[:1000])
    with pytest.raises(InputUnreadable, match="make data"):
        read_test_set(test_set)


def test_bare_array_under_the_test_sets_name_is_rejected(tmp_path):
    path = tmp_path / "cifar10.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputUnreadable, match="make data"):
        read_test_set(path)


def test_test_set_is_made_by_the_python_that_runs(monkeypatch, tmp_path):
    told = tmp_path / "told"
    code = f"import sys, pathlib; pathlib.Path({str(told)!r}).write_text(sys.executable)"
    stand_in_for_training(monkeypatch, tmp_path, code)
    prepare_test_set(told)
    assert told.read_text() == sys.executable
