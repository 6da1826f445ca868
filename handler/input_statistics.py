"""What an image looks like in four numbers. Where they drift away from those of the training, answers get worse."""

import numpy as np
from numpy.typing import NDArray

STATISTICS = ("brightness", "contrast", "colour_balance", "sharpness")

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # of red, green and blue, after ITU-R BT.601


def describe_picture(image: NDArray[np.uint8] | NDArray[np.float32]) -> dict[str, float]:
    """Measure one picture.

    Args:
        image: (32, 32, 3), in 0-255.

    Returns:
        brightness: mean luma, 0-1.
        contrast: its standard deviation, 0-0.5.
        colour_balance: mean red against mean blue, 0-1; 0.5 is neutral, above it is warm. Never negative, because
            Prometheus takes no sums that fall.
        sharpness: mean difference between neighbouring pixels' luma, 0-1.
    """
    pixels = image.astype(np.float32) / 255
    luma = pixels @ _LUMA
    red, _green, blue = pixels.mean((0, 1))
    across, down = np.abs(np.diff(luma, axis=1)).mean(), np.abs(np.diff(luma, axis=0)).mean()
    values = (luma.mean(), luma.std(), (1 + red - blue) / 2, (across + down) / 2)
    return {name: float(value) for name, value in zip(STATISTICS, values, strict=True)}
