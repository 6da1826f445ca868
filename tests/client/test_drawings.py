import numpy as np
import pytest

from cifar.client.drawings import SCENES, draw_samples, draw_scene
from cifar.common.project import class_names


def test_one_scene_is_drawn_for_each_class_in_the_order_of_the_indices():
    assert tuple(SCENES) == class_names()


def test_drawings_are_the_same_at_every_call_and_differ_from_each_other():
    first, second = draw_samples(), draw_samples()
    assert first.images.shape == (10, 32, 32, 3)
    assert first.images.dtype == np.uint8
    np.testing.assert_array_equal(first.images, second.images)
    assert len({image.tobytes() for image in first.images}) == 10


@pytest.mark.parametrize("name", class_names())
def test_scene_has_the_contrast_of_a_photograph(name):
    image = draw_scene(name)
    assert 60 < image.mean() < 200
    assert image.std() > 25
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 500  # flat areas would share colours


def test_sky_stands_above_the_sea():
    top, bottom = draw_scene("ship")[[1, 30]].mean(axis=(1, 2))
    assert top > bottom + 50
