"""Data augmentation on whole batches of uint8 images, where the data set lies: in memory, or on the GPU."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image.

    Attributes:
        crop_padding: a crop of the image's own size, from the image with N pixels of its own mirror image
            around it; 0 leaves it where it is.
        flip: mirror left to right with probability 0.5.
        cutout: side in pixels of a grey square at a random place, which may lie partly outside (DeVries and Taylor
            2017, arXiv:1708.04552); 0: none.
    """

    crop_padding: int
    flip: bool
    cutout: int


@dataclass(frozen=True)
class AugmentationSample:
    """Random numbers for each of N images, whatever the augmentation then makes of them.

    Those of an epoch are sampled at once: many small calls cost more than the images, and each would wait for a GPU.
    """

    mirrored: Tensor  # (N,) bool
    corner: Tensor  # (N, 2) in 0-1: row and column of the crop
    hole: Tensor  # (N, 2) in 0-1: row and column of the cutout's centre

    def part(self, start: int, stop: int) -> "AugmentationSample":
        """Return the sample of the images `start` to `stop`."""
        return AugmentationSample(self.mirrored[start:stop], self.corner[start:stop], self.hole[start:stop])


GREY = 120  # of 255: the mean of CIFAR-10's pixels over all channels


def sample_augmentation(
    count: int, generator: torch.Generator, device: torch.device | None = None
) -> AugmentationSample:
    """Draw for `count` images from `generator`, which is on the CPU: every device then sees the same images."""
    mirrored = torch.rand(count, generator=generator) < 0.5
    places = torch.rand(2, count, 2, generator=generator)
    return AugmentationSample(mirrored.to(device), places[0].to(device), places[1].to(device))


def augment(images: Tensor, chosen: Tensor, sample: AugmentationSample, augmentation: Augmentation) -> Tensor:
    """Take images out of the data set, cropped, mirrored and cut out as sampled.

    Choosing, crop and mirror are one look-up of pixels by index, so the cost hardly depends on what is switched on.

    Args:
        images: (M, H, W, C), any type; not changed.
        chosen: (N,) indices into `images`.
        sample: of these N images.
        augmentation: what to do.

    Returns:
        (N, H, W, C), a new tensor on the device of `images`.
    """
    _, height, width, _ = images.shape
    rows = torch.arange(height, device=images.device).expand(len(chosen), -1)  # (N, H)
    columns = torch.arange(width, device=images.device).expand(len(chosen), -1)  # (N, W)
    if augmentation.flip:
        columns = torch.where(sample.mirrored[:, None], columns.flip(1), columns)
    if augmentation.crop_padding:
        places = 2 * augmentation.crop_padding + 1
        shift = (sample.corner * places).long() - augmentation.crop_padding  # (N, 2)
        rows = _mirror_at_edges(rows + shift[:, :1], height)
        columns = _mirror_at_edges(columns + shift[:, 1:], width)
    outputs = images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
    if augmentation.cutout:
        outputs[_squares(sample.hole, height, width, augmentation.cutout)] = GREY
    return outputs


def _mirror_at_edges(positions: Tensor, size: int) -> Tensor:
    """Fold positions outside 0 to size - 1 back inside: -1 becomes 1, `size` becomes size - 2."""
    positions = positions.abs()
    return torch.where(positions >= size, 2 * (size - 1) - positions, positions)


def _squares(centres: Tensor, height: int, width: int, side: int) -> Tensor:
    """Return where the squares lie, (N, H, W) bool."""
    size = torch.tensor([height, width], device=centres.device)
    first = (centres * size).long() - side // 2  # (N, 2)
    rows = torch.arange(height, device=centres.device) - first[:, :1]
    columns = torch.arange(width, device=centres.device) - first[:, 1:]
    return ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
