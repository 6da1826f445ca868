"""Folders of image files, as training reads them."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar.common.project import class_names


@pytest.fixture
def classes() -> tuple[str, ...]:
    return class_names()


@pytest.fixture
def png() -> Callable[..., bytes]:
    """An image of noise that no other seed gives; PNG, so that every pixel comes back."""

    def encode(seed: int, size: tuple[int, int] = (32, 32), kind: str = "PNG") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()

    return encode


@pytest.fixture
def tree(tmp_path: Path, png: Callable[..., bytes]) -> Path:
    """`train/<class>/` with two images of each class, `test/<class>/` with one: 30 in all."""
    root = tmp_path / "pictures"
    seed = 0
    for part, count in (("train", 2), ("test", 1)):
        for name in class_names():
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index:04d}.png").write_bytes(png(seed))
                seed += 1
    return root
