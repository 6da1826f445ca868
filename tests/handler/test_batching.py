"""Images of several requests in slices, without a network."""

import numpy as np
import pytest

from batching import rebatch


def numbered(start: int, count: int, dtype: type = np.uint8) -> np.ndarray:
    numbers: np.ndarray = np.arange(start, start + count, dtype=dtype)
    return np.broadcast_to(numbers[:, None, None, None], (count, 32, 32, 3)).copy()


@pytest.mark.parametrize("counts", [[1], [4], [5], [1, 17, 1, 3], [4, 4], [3, 1, 9]])
def test_slices_hold_every_image_once_in_order_and_only_the_last_is_short(counts):
    starts = np.cumsum([0, *counts[:-1]])
    slices = list(rebatch([numbered(start, count) for start, count in zip(starts, counts, strict=True)], 4))
    assert np.concatenate(slices)[:, 0, 0, 0].tolist() == list(range(sum(counts)))
    assert [len(part) for part in slices[:-1]] == [4] * (len(slices) - 1)


def test_only_the_slice_where_both_kinds_meet_becomes_float():
    arrays = [numbered(0, 10), numbered(10, 1, np.float32), numbered(11, 9)]
    slices = list(rebatch(arrays, 4))
    assert [str(part.dtype) for part in slices] == ["uint8", "uint8", "float32", "uint8", "uint8"]
    assert np.concatenate(slices)[:, 0, 0, 0].tolist() == list(range(20))


def test_a_slice_of_one_request_is_no_copy():
    images = numbered(0, 8)
    assert all(np.shares_memory(part, images) for part in rebatch([images], 4))


def test_slices_may_be_written_to_as_torch_wants():
    images = np.frombuffer(numbered(0, 8).tobytes(), dtype=np.uint8).reshape(8, 32, 32, 3)
    assert all(part.flags.writeable for part in rebatch([images], 4))
