"""The images of a batch of requests, dealt into slices for the network."""

from collections.abc import Iterator, Sequence

import numpy as np

from pixels import Images


def rebatch(arrays: Sequence[Images], size: int) -> Iterator[Images]:
    """Deal images out in their order, whichever request they came in.

    Only a slice in which both kinds of numbers meet becomes float32: uint8 beside float32 in 0–255 gives float32 in
    0–255, which the network takes as the same pixels. A slice from one request is a view of its images.

    Args:
        arrays: uint8 or float32, (N, 32, 32, 3), one a request.
        size: how many images a slice has; the last one may have fewer.
    """
    parts: list[Images] = []
    room = size
    for array in arrays:
        start = 0
        while start < len(array):
            part = array[start : start + room]
            parts.append(part)
            start += len(part)
            room -= len(part)
            if room == 0:
                yield _join(parts)
                parts, room = [], size
    if parts:
        yield _join(parts)


def _join(parts: list[Images]) -> Images:
    if len(parts) == 1 and parts[0].flags.writeable:  # torch warns of a view of bytes, which it could write to
        return parts[0]
    joined: Images = np.concatenate(parts)  # type: ignore[assignment]  # of uint8 and float32: one of the two
    return joined
