"""Four numbers of images whose numbers are known."""

import numpy as np
import pytest

from input_statistics import STATISTICS, describe_picture

STRIPES = np.zeros((32, 32, 3), np.uint8)
STRIPES[:, ::2] = 255


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.zeros((32, 32, 3), np.uint8), (0, 0, 0.5, 0)),
        (np.full((32, 32, 3), 255, np.uint8), (1, 0, 0.5, 0)),
        (np.full((32, 32, 3), (255, 0, 0), np.uint8), (0.299, 0, 1, 0)),
        (np.full((32, 32, 3), (0, 0, 255), np.uint8), (0.114, 0, 0, 0)),
        (STRIPES, (0.5, 0.5, 0.5, 0.5)),  # every step across is 1, every step down 0
        (np.full((32, 32, 3), 127.5, np.float32), (0.5, 0, 0.5, 0)),
    ],
)
def test_known_pictures_have_known_numbers(image, expected):
    found = describe_picture(image)
    assert tuple(found) == STATISTICS
    assert tuple(found.values()) == pytest.approx(expected, abs=1e-6)


def test_noise_is_sharper_and_fog_has_less_contrast():
    generator = np.random.default_rng(0)
    smooth = np.kron(generator.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    noisy = np.clip(smooth + generator.normal(0, 40, smooth.shape), 0, 255).astype(np.uint8)
    fog = (smooth * 0.4 + 150).astype(np.uint8)
    assert describe_picture(noisy)["sharpness"] > 2 * describe_picture(smooth)["sharpness"]
    assert describe_picture(fog)["contrast"] < 0.5 * describe_picture(smooth)["contrast"]
    assert describe_picture(fog)["brightness"] > describe_picture(smooth)["brightness"]
