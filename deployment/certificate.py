"""Parity: does whoever answers now answer as the trained network did when it was exported?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Kernels and devices differ in the last bits of single precision, about 1e-6; half precision on a GPU in 1e-3. Another
# network, or pixels that are scaled otherwise, in 1e-1.
TOLERANCE = 5e-3


@dataclass(frozen=True)
class Certificate:
    """What training/certificate.py wrote into the exported file.

    Attributes:
        images: (N, 32, 32, 3) uint8.
        probabilities: (N, 10), what the trained network gave them.
        class_names: the columns.
    """

    images: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    class_names: tuple[str, ...]


def find_difference(expected: NDArray[np.float32], got: NDArray[np.floating]) -> str | None:
    """Say in words how probabilities differ from the recorded ones; None where they do not.

    Args:
        expected: (N, 10).
        got: what was answered for the same pictures.
    """
    if got.shape != expected.shape:
        return f"the answer has the shape {got.shape}, expected {expected.shape}"
    if not np.isfinite(got).all():
        return "some probabilities are no finite numbers"
    difference = np.abs(got - expected)
    if difference.max() > TOLERANCE:
        picture, column = np.unravel_index(difference.argmax(), difference.shape)
        return (
            f"picture {picture} of {len(expected)} gets {got[picture, column]:.4f} for class {column}, recorded was "
            f"{expected[picture, column]:.4f} (at most {TOLERANCE:g} apart)"
        )
    return None
