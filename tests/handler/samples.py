"""One image in every form in which it can be sent."""

import io
from typing import Any

import numpy as np
from PIL import Image

JSON = "application/json"
RAW = "application/octet-stream"
NPY = "application/x-npy"
IMAGE = np.random.default_rng(7).integers(0, 256, (32, 32, 3), dtype=np.uint8)
FLAT = IMAGE.ravel().tolist()
NESTED = IMAGE.tolist()


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_of(image: np.ndarray) -> bytes:
    return encode(Image.fromarray(image))


def npy_of(array: np.ndarray, *, version: tuple[int, int] | None = None) -> bytes:
    """An .npy file as numpy writes it."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


def tensor_of(images: np.ndarray, *, datatype: str = "UINT8", **keys: Any) -> dict[str, Any]:
    """An input of the Open Inference Protocol, flat; `keys` replaces some of it."""
    tensor = {"name": "images", "shape": list(images.shape), "datatype": datatype, "data": images.ravel().tolist()}
    return tensor | keys


PNG = png_of(IMAGE)
JPEG = encode(Image.fromarray(IMAGE), "JPEG", quality=95)
