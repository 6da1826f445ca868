"""Data augmentation on whole batches of uint8 pictures."""

import torch
from torch import Tensor


def augment(images: Tensor, crop_padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Crop each picture at random from a black border of `crop_padding` pixels and mirror every second one, by chance.

    Both are one look-up of pixels by index for the whole batch, so the cost hardly depends on what is switched on.

    Args:
        images: (N, H, W, C), any type; not changed.
        crop_padding: pixels; 0 leaves the pictures where they are.
        flip: mirror left to right with probability 0.5.
        generator: on the CPU; the only source of chance.

    Returns:
        (N, H, W, C), a new tensor on the device of `images`.
    """
    count, height, width, _ = images.shape
    device = images.device
    rows = torch.arange(height, device=device).repeat(count, 1)  # (N, H)
    columns = torch.arange(width, device=device).repeat(count, 1)  # (N, W)
    if flip:
        mirrored = torch.rand(count, generator=generator).to(device) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    if crop_padding:
        offsets = torch.randint(0, 2 * crop_padding + 1, (2, count, 1), generator=generator).to(device)
        rows, columns = rows + offsets[0], columns + offsets[1]
        images = torch.nn.functional.pad(images, (0, 0, crop_padding, crop_padding, crop_padding, crop_padding))
    each = torch.arange(count, device=device)
    return images[each[:, None, None], rows[:, :, None], columns[:, None, :]]
