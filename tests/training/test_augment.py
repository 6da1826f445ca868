"""Augmentation, checked by trying every crop that there is."""

import numpy as np
import pytest
import torch

from training.augment import augment

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (40, 6, 5, 3), dtype=np.uint8))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def crops(image, padding):
    """Every crop of the picture in its black border, by (down, right, mirrored)."""
    height, width, _ = image.shape
    found = {}
    for mirrored in (False, True):
        source = image.flip(1) if mirrored else image
        padded = torch.zeros(height + 2 * padding, width + 2 * padding, 3, dtype=image.dtype)
        padded[padding : padding + height, padding : padding + width] = source
        for down in range(2 * padding + 1):
            for right in range(2 * padding + 1):
                crop = padded[down : down + height, right : right + width].numpy().tobytes()
                found[crop] = (down, right, mirrored)
    return found


def test_nothing_switched_on_changes_nothing():
    assert torch.equal(augment(IMAGES, 0, False, seeded()), IMAGES)


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_every_output_is_a_crop_of_its_padded_picture(padding, flip):
    for image, output in zip(IMAGES, augment(IMAGES, padding, flip, seeded()), strict=True):
        known = crops(image, padding)
        assert output.numpy().tobytes() in known
        if not flip:
            assert known[output.numpy().tobytes()][2] is False


def test_every_place_and_both_directions_are_drawn_about_equally_often():
    image = IMAGES[:1].expand(3600, -1, -1, -1)
    known = crops(IMAGES[0], 1)
    drawn = [known[output.numpy().tobytes()] for output in augment(image, 1, True, seeded())]
    counts = {place: drawn.count(place) for place in known.values()}
    assert len(counts) == 18
    assert min(counts.values()) > 130  # 200 expected, standard deviation 14
    assert max(counts.values()) < 270


def test_a_flip_mirrors_left_to_right_about_half_of_the_pictures():
    image = IMAGES[:1].expand(2000, -1, -1, -1)
    outputs = augment(image, 0, True, seeded())
    mirrored = (outputs == IMAGES[0].flip(1)).flatten(1).all(1)
    same = (outputs == IMAGES[0]).flatten(1).all(1)
    assert (mirrored | same).all()
    assert 900 < mirrored.sum() < 1100


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others():
    first, again, other = (augment(IMAGES, 2, True, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_generator_given_is_the_only_source_of_chance():
    before = torch.get_rng_state()
    augment(IMAGES, 2, True, seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_input_is_not_changed_and_bytes_stay_bytes():
    before = IMAGES.clone()
    output = augment(IMAGES, 2, True, seeded())
    output += 1
    assert torch.equal(IMAGES, before)
    assert output.dtype == torch.uint8
    untouched = augment(IMAGES, 0, False, seeded())
    untouched += 1
    assert torch.equal(IMAGES, before)
