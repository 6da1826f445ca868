"""Reference outputs: images, and what the trained network said to them, embedded in the exported file.

With them, everyone who has the file can check that a server answers as the network did when it was exported.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cifar.common.project import IMAGE_SIZE

# Kernels and devices differ in the last bits of single precision, about 1e-6; half precision on a GPU in 1e-3. Another
# network, or pixels that are scaled otherwise, in 1e-1.
TOLERANCE = 5e-3


@dataclass(frozen=True)
class ReferenceOutputs:
    """What training/export.py wrote into the exported file.

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
        got: what was answered for the same images.
    """
    if got.shape != expected.shape:
        return f"the answer has the shape {got.shape}, expected {expected.shape}"
    if not np.isfinite(got).all():
        return "some probabilities are no finite numbers"
    difference = np.abs(got - expected)
    if difference.max() > TOLERANCE:
        image, column = np.unravel_index(difference.argmax(), difference.shape)
        return (
            f"image {image} of {len(expected)} gets {got[image, column]:.4f} for class {column}, recorded was "
            f"{expected[image, column]:.4f} (at most {TOLERANCE:g} apart)"
        )
    return None


def pack_arrays(images: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> bytes:
    """Return the two arrays as a NumPy .npz file."""
    file = io.BytesIO()
    np.savez(file, images=images, probabilities=probabilities)
    return file.getvalue()


def synthetic_images(count: int = 500) -> NDArray[np.uint8]:
    """Return images (N, 32, 32, 3) of noise at every smoothness: a stand-in where the test images are not at hand."""
    generator = np.random.default_rng(0)
    images = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    for index in range(count):
        side = 2 ** (index % 6)  # blocks of 32, 16, … 1 pixels
        coarse = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        images[index] = np.kron(coarse, np.ones((IMAGE_SIZE // side, IMAGE_SIZE // side, 1), dtype=np.uint8))
    return images
