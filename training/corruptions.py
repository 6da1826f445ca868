"""Ten corruptions in five severities: how an image suffers on its way to a classifier.

Kinds and terms are those of Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019. The code and the amounts below are this project's own, so the metrics are not to be compared
with those published for CIFAR-10-C.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from cifar.common.project import IMAGE_SIZE

SEVERITIES = (1, 2, 3, 4, 5)

Images = NDArray[np.uint8]  # (N, 32, 32, 3), RGB
Values = NDArray[np.float32]

_BATCH = 500  # images: their floats fit the caches
_WHITE = 255.0


def corrupt(images: Images, name: str, severity: int, seed: int) -> Images:
    """Corrupt each image.

    One seed gives the same random numbers at every severity: two severities of a corruption differ in nothing else.

    Args:
        images: uint8 (N, 32, 32, 3), RGB; not changed.
        name: of CORRUPTIONS.
        severity: 1, the mildest, to 5.
        seed: at least 0; the only source of randomness.

    Returns:
        uint8 (N, 32, 32, 3), a new array.

    Raises:
        ValueError: an unknown name or severity, or something other than such images.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}; known: {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity}; expected 1 to {len(SEVERITIES)}")
    if images.dtype != np.uint8 or images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3):
        raise ValueError(f"images are {images.dtype} {images.shape}; expected uint8 (N, {IMAGE_SIZE}, {IMAGE_SIZE}, 3)")
    corruption = CORRUPTIONS[name]
    amount = corruption.amounts[severity - 1]
    generator = np.random.default_rng(seed)
    corrupted = np.empty_like(images)
    for start in range(0, len(images), _BATCH):
        values = corruption.apply(images[start : start + _BATCH], amount, generator)
        corrupted[start : start + _BATCH] = np.rint(np.clip(values, 0, _WHITE))
    return corrupted


@dataclass(frozen=True)
class Corruption:
    """One way to spoil images.

    Attributes:
        apply: from images, an amount and the source of randomness to images of any type, in levels; `corrupt` clips and
            rounds them.
        amounts: one a severity, the mildest first.
        unit: of the amounts. A level is one of a pixel's 256.
    """

    apply: Callable[[Images, float, np.random.Generator], NDArray[np.generic]]
    amounts: tuple[float, float, float, float, float]
    unit: str


def _add_gaussian_noise(images: Images, deviation: float, generator: np.random.Generator) -> Values:
    """The noise of a sensor in poor light."""
    return images + deviation * generator.standard_normal(images.shape, dtype=np.float32)


def _add_shot_noise(images: Images, photons: float, generator: np.random.Generator) -> Images:
    """The noise of counted light: the number of photons is Poisson distributed, its mean proportional to the level.

    A count is the quantile at a random rank, looked up: drawing from the distribution takes three times as long.
    """
    ranks = 4096
    quantiles = _poisson_quantiles(np.arange(256) * photons / _WHITE, ranks)  # (256, ranks)
    levels = np.rint(np.minimum(quantiles * (_WHITE / photons), _WHITE)).astype(np.uint8)
    seen: Images = levels[images, generator.integers(0, ranks, images.shape, dtype=np.uint16)]
    return seen


def _add_impulse_noise(images: Images, share: float, generator: np.random.Generator) -> Images:
    """Dead and stuck values, as many black as white; each channel by itself."""
    ranks = 1 << 16
    rank = generator.integers(0, ranks, images.shape, dtype=np.uint16)
    return np.where(rank < share / 2 * ranks, 0, np.where(rank < share * ranks, 255, images)).astype(np.uint8)


def _blur_gaussian(images: Images, deviation: float, _: np.random.Generator) -> Values:
    """A lens out of focus; the image is mirrored at its edges."""
    reach = int(np.ceil(4 * deviation))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-((offsets / deviation) ** 2) / 2)
    mirrored = np.pad(np.arange(IMAGE_SIZE), reach, mode="symmetric")
    matrix = np.zeros((IMAGE_SIZE, IMAGE_SIZE))
    for pixel in range(IMAGE_SIZE):
        np.add.at(matrix[pixel], mirrored[pixel : pixel + len(offsets)], weights / weights.sum())
    return _resample(images, matrix)


def _blur_motion(images: Images, length: float, generator: np.random.Generator) -> Values:
    """A camera that moved straight, in a direction of its own for each image."""
    reach = int(np.ceil(length / 2))
    angles = generator.uniform(0, np.pi, (len(images), 1, 1))
    path = np.linspace(-(length - 1) / 2, (length - 1) / 2, 4 * int(np.ceil(length)))  # pixels from the centre
    offsets = np.arange(-reach, reach + 1)[:, None]
    # (N, 2 × reach + 1, len(path)): each point of the path shared by its neighbours, row and column alone.
    rows = np.maximum(0, 1 - np.abs(offsets - path * np.sin(angles)))
    columns = np.maximum(0, 1 - np.abs(offsets - path * np.cos(angles)))
    kernels = torch.from_numpy((rows @ columns.transpose(0, 2, 1) / len(path)).astype(np.float32))
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32)
    padded = functional.pad(planes, (reach, reach, reach, reach), mode="reflect")
    # Images and colours all become channels of one image, each with a kernel of its own: one call for the batch.
    blurred = functional.conv2d(
        padded.reshape(1, -1, *padded.shape[2:]), kernels.repeat_interleave(3, 0)[:, None], groups=3 * len(images)
    )
    values: Values = blurred.reshape(planes.shape).permute(0, 2, 3, 1).numpy()
    return values


def _lower_contrast(images: Images, kept: float, _: np.random.Generator) -> Values:
    """Each colour moves towards its mean over the image, which stays."""
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    contrasted: Values = mean + np.float32(kept) * (images - mean)
    return contrasted


def _brighten(images: Images, levels: float, _: np.random.Generator) -> Values:
    """Exposed for too long: the value of HSV rises up to white, hue and saturation stay."""
    value = images.max(axis=3, keepdims=True).astype(np.float32)  # (N, 32, 32, 1)
    raised = np.minimum(value + np.float32(levels), np.float32(_WHITE))
    brightened: Values = np.where(value > 0, images * (raised / np.maximum(value, 1)), raised)  # black has no hue: grey
    return brightened


def _add_fog(images: Images, density: float, generator: np.random.Generator) -> Values:
    """Light grey over each pixel: Koschmieder's model of haze, with a fractal cloud in place of the distance."""
    airlight = 230  # levels
    cloud = np.zeros((len(images), IMAGE_SIZE, IMAGE_SIZE))
    for octave, side in enumerate((2, 4, 8, 16)):
        grid = generator.random((len(images), side, side))
        stretch = _stretching(side)
        cloud += stretch @ grid @ stretch.T / 2**octave
    low, high = cloud.min(axis=(1, 2), keepdims=True), cloud.max(axis=(1, 2), keepdims=True)
    thickness = (density * (0.5 + (cloud - low) / (high - low)))[..., None].astype(np.float32)  # mean about `density`
    foggy: Values = images + thickness * (airlight - images.astype(np.float32))
    return foggy


def _compress_jpeg(images: Images, quality: float, _: np.random.Generator) -> Images:
    """Written and read by Pillow, colours at half the resolution (4:2:0), as most programs do."""
    decoded = np.empty_like(images)
    for image, result in zip(images, decoded, strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(quality), subsampling="4:2:0")
        with Image.open(file, formats=["JPEG"]) as compressed:
            result[:] = compressed
    return decoded


def _pixelate(images: Images, side: float, _: np.random.Generator) -> Values:
    """A small image, enlarged without smoothing: `side` blocks in a row."""
    blocks = int(side)
    edges = np.arange(blocks + 1)[:, None] * IMAGE_SIZE / blocks  # pixels
    starts = np.arange(IMAGE_SIZE)
    shared = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)  # of block and pixel, in pixels
    small = _resample(images, np.maximum(shared, 0) * blocks / IMAGE_SIZE)
    block = ((starts + 0.5) * blocks / IMAGE_SIZE).astype(int)
    return small[:, block[:, None], block]


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "gaussian_noise": Corruption(_add_gaussian_noise, (6, 10, 14, 19, 25), "standard deviation, levels"),
        "shot_noise": Corruption(_add_shot_noise, (500, 250, 125, 75, 45), "photons at white"),
        "impulse_noise": Corruption(_add_impulse_noise, (0.01, 0.02, 0.035, 0.055, 0.08), "share of the values"),
        "gaussian_blur": Corruption(_blur_gaussian, (0.5, 0.65, 0.8, 1.0, 1.25), "standard deviation, pixels"),
        "motion_blur": Corruption(_blur_motion, (2, 3, 4, 5, 6.5), "length of the path, pixels"),
        "contrast": Corruption(_lower_contrast, (0.75, 0.55, 0.42, 0.32, 0.23), "share of the contrast kept"),
        "brightness": Corruption(_brighten, (20, 40, 60, 85, 115), "levels"),
        "fog": Corruption(_add_fog, (0.15, 0.27, 0.39, 0.5, 0.6), "mean share of the light that is fog's"),
        "jpeg_compression": Corruption(_compress_jpeg, (60, 45, 30, 20, 12), "quality, Pillow's scale"),
        "pixelate": Corruption(_pixelate, (29, 26, 23, 20, 16), "blocks in a row"),
    }
)


def _resample(images: Images, matrix: NDArray[np.float64]) -> Values:
    """Weigh the pixels of each row and of each column by `matrix` (K, 32): (N, 32, 32, 3) to (N, K, K, 3)."""
    count, size, _, channels = images.shape
    weights = matrix.astype(np.float32)
    rows = weights @ images.reshape(count, size, size * channels).astype(np.float32)  # (N, K, 96)
    # Colours lie side by side in a row: the same weights for each of the three make it one product of matrices.
    both = rows.reshape(-1, size * channels) @ np.kron(weights.T, np.eye(channels, dtype=np.float32))
    values: Values = both.reshape(count, len(matrix), len(matrix), channels)
    return values


def _stretching(side: int) -> NDArray[np.float64]:
    """Weights (32, side) that stretch a row of `side` numbers over an image's, linearly between them."""
    positions = np.linspace(0, side - 1, IMAGE_SIZE)[:, None]
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(positions - np.arange(side)))
    return weights


def _poisson_quantiles(means: NDArray[np.floating], ranks: int) -> NDArray[np.int64]:
    """Return the quantiles (M, ranks) of Poisson distributions with the given means (M,), at equally spaced ranks."""
    largest = means.max()
    counts = np.arange(int(largest + 6 * np.sqrt(largest) + 10))
    log_factorials = np.cumsum(np.log(np.maximum(counts, 1)))
    mean = np.maximum(means, 1e-9)[:, None]  # 0 photons are always 0; its logarithm would be infinite
    cumulative = np.exp(counts * np.log(mean) - mean - log_factorials).cumsum(axis=1)
    at = (np.arange(ranks) + 0.5) / ranks
    return np.stack([np.searchsorted(row, at) for row in cumulative])
