"""The validation split, and the file of arrays."""

import dataclasses
import io
import zipfile

import numpy as np
import pytest

from training.data import PrepareParams, draw_validation, load_dataset, prepare_dataset, save_dataset
from training.errors import DataError, ParameterError
from training.image_folder import read_image_folder

LABELS = np.repeat(np.arange(10), [10, 20, 30, 40, 50, 60, 70, 80, 90, 100])


def test_the_validation_set_has_the_same_share_of_each_class():
    drawn = draw_validation(LABELS, 0.1, seed=0)
    assert np.bincount(LABELS[drawn]).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_the_order_of_the_labels_does_not_matter_to_the_share():
    shuffled = np.random.default_rng(3).permutation(LABELS)
    assert np.bincount(shuffled[draw_validation(shuffled, 0.1, seed=0)]).tolist() == list(range(1, 11))


def test_the_same_seed_draws_the_same_images_and_another_seed_draws_others():
    first, again, other = (draw_validation(LABELS, 0.5, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_split_is_random_and_not_the_first_images_of_each_class():
    labels = np.zeros(1000, dtype=np.int64)
    drawn = np.flatnonzero(draw_validation(labels, 0.1, seed=0))
    assert 300 < drawn.mean() < 700
    assert drawn.max() > 900


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_fraction_that_leaves_a_part_without_a_class_is_rejected(fraction):
    with pytest.raises(DataError, match="class 0 has 10 training images"):
        draw_validation(LABELS, fraction, seed=0)


def test_every_training_image_goes_to_exactly_one_part(tree):
    dataset = prepare_dataset(PrepareParams("folder", str(tree), 0.5, 0))

    def pictures(images):
        return {image.tobytes() for image in images}

    train, validation, test = map(pictures, (dataset.train_images, dataset.validation_images, dataset.test_images))
    assert (len(train), len(validation), len(test)) == (10, 10, 10)
    assert not train & validation
    assert not (train | validation) & test


def test_images_keep_their_labels_through_the_split(tree, classes, png):
    for index in range(4):  # one class larger than the others, so that the parts' labels differ
        (tree / "train" / "cat" / f"more{index}.png").write_bytes(png(100 + index))
    images, labels = read_image_folder(tree, classes)["train"]
    label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    dataset = prepare_dataset(PrepareParams("folder", str(tree), 0.34, 0))
    assert (len(dataset.train_labels), len(dataset.validation_labels)) == (9 + 4, 9 + 2)
    for part in ("train", "validation"):
        for image, label in zip(getattr(dataset, f"{part}_images"), getattr(dataset, f"{part}_labels"), strict=True):
            assert label_of[image.tobytes()] == label


@pytest.mark.parametrize(("key", "value"), [("validation_fraction", 0.0), ("validation_fraction", 1.0), ("seed", -1)])
def test_parameters_out_of_range_are_rejected_by_name(key, value):
    with pytest.raises(ParameterError, match=f"prepare.{key}"):
        PrepareParams(**({"source": "folder", "path": "x", "validation_fraction": 0.1, "seed": 0} | {key: value}))


def test_what_was_saved_is_loaded(make_dataset, tmp_path):
    dataset = make_dataset()
    save_dataset(dataset, tmp_path / "new" / "data.npz")
    loaded = load_dataset(tmp_path / "new" / "data.npz")
    for field in dataclasses.fields(dataset):
        saved, got = getattr(dataset, field.name), getattr(loaded, field.name)
        assert saved.dtype == got.dtype
        assert np.array_equal(saved, got)
    assert loaded.digest == dataset.digest


def test_the_digest_changes_with_one_pixel_one_label_and_the_split(make_dataset):
    dataset = make_dataset()
    pixel = dataset.test_images.copy()
    pixel[3, 5, 6, 1] ^= 1
    label = dataset.train_labels.copy()
    label[0] += 1
    others = [
        dataclasses.replace(dataset, test_images=pixel),
        dataclasses.replace(dataset, train_labels=label),
        dataclasses.replace(dataset, train_images=dataset.validation_images, validation_images=dataset.train_images),
    ]
    assert len({dataset.digest, *(other.digest for other in others)}) == 4


def test_the_digest_does_not_depend_on_the_layout_in_memory(make_dataset):
    dataset = make_dataset()
    strided = np.asfortranarray(dataset.train_images)
    assert dataclasses.replace(dataset, train_images=strided).digest == dataset.digest


def test_a_missing_file_is_rejected_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz is missing; make it: make data"):
        load_dataset(tmp_path / "none.npz")


@pytest.fixture
def saved(make_dataset, tmp_path):
    path = tmp_path / "data.npz"
    save_dataset(make_dataset(train=1, validation=1, test=1), path)
    return path


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_rejected(saved, share):
    saved.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    with pytest.raises(DataError, match=r"data\.npz"):
        load_dataset(saved)


def test_a_flipped_bit_anywhere_is_rejected_or_changes_nothing(saved, make_dataset):
    digest = make_dataset(train=1, validation=1, test=1).digest
    whole = saved.read_bytes()
    generator = np.random.default_rng(0)
    # Half of the flips hit the headers, where damage shows in the most different ways.
    headers = [start for start in range(len(whole)) if whole[start : start + 2] == b"PK"]
    places = [int(generator.choice(headers)) + int(generator.integers(0, 200)) for _ in range(150)]
    places += generator.integers(0, len(whole), 150).tolist()
    rejected = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[min(place, len(whole) - 1)] ^= 1 << int(generator.integers(0, 8))
        saved.write_bytes(damaged)
        try:
            assert load_dataset(saved).digest == digest
        except DataError as error:
            rejected += 1
            assert "data.npz" in str(error)
    assert rejected > 150


def test_images_that_do_not_fit_the_digest_are_rejected(saved):
    with np.load(saved) as file:
        arrays = dict(file)
    arrays["test_images"][0, 0, 0, 0] ^= 1
    np.savez(saved, **arrays)
    with pytest.raises(DataError, match="other images than its digest"):
        load_dataset(saved)


def test_other_files_of_arrays_are_rejected(saved, tmp_path):
    np.savez(saved, train_images=np.zeros(3))
    with pytest.raises(DataError, match="no prepared data set"):
        load_dataset(saved)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="no prepared data set"):
        load_dataset(tmp_path / "one.npy")
    with pytest.raises(DataError, match="no prepared data set"):
        load_dataset(tmp_path)


def test_a_pickle_inside_the_file_is_not_unpickled(saved, tmp_path):
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return (marker.write_text, ("x",))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(saved, "w") as archive:
        archive.writestr("train_images.npy", buffer.getvalue())
    with pytest.raises(DataError):
        load_dataset(saved)
    assert not marker.exists()
