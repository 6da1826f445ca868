"""The parity certificate: pictures and the probabilities that the trained network gave them, inside the exported file.

Whoever serves the file can prove with it that a server answers as the network did when it was exported.
"""

import copy
import io

import numpy as np
import torch
from numpy.typing import NDArray

from training.model import IMAGE_SIZE, Classifier

CERTIFICATE_NAME = "certificate.npz"  # inside the TorchScript file; images (N, 32, 32, 3), probabilities (N, 10)
_PICTURES = 32


@torch.inference_mode()
def write_certificate(classifier: Classifier) -> bytes:
    """Return the certificate of a classifier in evaluation mode, as a NumPy .npz file.

    In double precision, rounded to single at the end: then it is the same on every machine, whatever the order in which
    its CPU adds up.
    """
    images = synthetic_images(_PICTURES)
    exact = copy.deepcopy(classifier).double()
    file = io.BytesIO()
    np.savez(file, images=images, probabilities=exact(torch.from_numpy(images)).numpy().astype(np.float32))
    return file.getvalue()


def synthetic_images(count: int = 500) -> NDArray[np.uint8]:
    """Draw pictures (N, 32, 32, 3) of noise at every smoothness: a stand-in where the test images are not at hand."""
    generator = np.random.default_rng(0)
    pictures = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    for index in range(count):
        side = 2 ** (index % 6)  # blocks of 32, 16, … 1 pixels
        coarse = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        pictures[index] = np.kron(coarse, np.ones((IMAGE_SIZE // side, IMAGE_SIZE // side, 1), dtype=np.uint8))
    return pictures
