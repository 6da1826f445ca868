"""Augmentation, checked by trying every crop that there is."""

import numpy as np
import pytest
import torch

from training.augment import GREY, Augmentation, AugmentationSample, augment, sample_augmentation

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 100, (40, 6, 5, 3), dtype=np.uint8))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def augmented(images, crop_padding=0, flip=False, cutout=0, seed=0):
    every = torch.arange(len(images))
    return augment(
        images, every, sample_augmentation(len(images), seeded(seed)), Augmentation(crop_padding, flip, cutout)
    )


def crops(image, padding, mirrors=(False, True)):
    """Every crop of the image with its mirror image around it, by (down, right, mirrored)."""
    height, width, _ = image.shape
    found = {}
    for mirrored in mirrors:
        source = image.flip(1) if mirrored else image
        padded = torch.from_numpy(np.pad(source.numpy(), ((padding, padding), (padding, padding), (0, 0)), "reflect"))
        for down in range(2 * padding + 1):
            for right in range(2 * padding + 1):
                crop = padded[down : down + height, right : right + width].numpy().tobytes()
                found[crop] = (down, right, mirrored)
    return found


def test_nothing_switched_on_changes_nothing():
    assert torch.equal(augmented(IMAGES), IMAGES)


def test_the_chosen_images_come_in_the_order_in_which_they_were_chosen():
    chosen = torch.tensor([7, 3, 3, 39])
    outputs = augment(IMAGES, chosen, sample_augmentation(4, seeded()), Augmentation(0, False, 0))
    assert torch.equal(outputs, IMAGES[chosen])


@pytest.mark.parametrize("padding", [0, 1, 3, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_every_output_is_a_crop_of_its_padded_image(padding, flip):
    for image, output in zip(IMAGES, augmented(IMAGES, padding, flip), strict=True):
        assert output.numpy().tobytes() in crops(image, padding, (False, True) if flip else (False,))


def test_every_place_and_both_directions_are_drawn_about_equally_often():
    image = IMAGES[:1].expand(3600, -1, -1, -1)
    known = crops(IMAGES[0], 1)
    drawn = [known[output.numpy().tobytes()] for output in augmented(image, 1, True)]
    counts = {place: drawn.count(place) for place in known.values()}
    assert len(counts) == 18
    assert min(counts.values()) > 130  # 200 expected, standard deviation 14
    assert max(counts.values()) < 270


def test_a_flip_mirrors_left_to_right_about_half_of_the_images():
    image = IMAGES[:1].expand(2000, -1, -1, -1)
    outputs = augmented(image, flip=True)
    mirrored = (outputs == IMAGES[0].flip(1)).flatten(1).all(1)
    same = (outputs == IMAGES[0]).flatten(1).all(1)
    assert (mirrored | same).all()
    assert 900 < mirrored.sum() < 1100


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_cutout_greys_one_square_of_that_side_which_may_lie_partly_outside(side):
    outputs = augmented(IMAGES[:1].expand(2000, -1, -1, -1), cutout=side)  # no pixel of IMAGES is that bright
    shapes = set()
    for output in outputs:
        rows, columns = torch.nonzero((output == GREY).all(2), as_tuple=True)
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert len(rows) == height * width
        at_edge = rows.min() == 0 or rows.max() == 5 or columns.min() == 0 or columns.max() == 4
        assert (height, width) == (side, side) or at_edge
        shapes.add((height, width))
        untouched = torch.ones(6, 5, dtype=torch.bool)
        untouched[rows, columns] = False
        assert torch.equal(output[untouched], IMAGES[0][untouched])
    assert max(shapes) == (side, side)
    assert len(shapes) > 1 or side == 1


def test_the_same_draws_give_the_same_images_and_others_do_not():
    first, again, other = (augmented(IMAGES, 2, True, 2, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_part_of_the_draws_is_that_of_its_images():
    whole = sample_augmentation(10, seeded())
    part = whole.part(3, 7)
    assert isinstance(part, AugmentationSample)
    augmentation = Augmentation(2, True, 2)
    outputs = augment(IMAGES, torch.arange(10), whole, augmentation)
    assert torch.equal(augment(IMAGES, torch.arange(3, 7), part, augmentation), outputs[3:7])


def test_the_images_given_are_not_changed():
    before = IMAGES.clone()
    augmented(IMAGES, 2, True, 3)
    assert torch.equal(IMAGES, before)
