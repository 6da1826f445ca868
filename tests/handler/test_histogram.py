"""Buckets as Prometheus has them."""

import numpy as np
import pytest

from histogram import Histogram


def test_buckets_are_cumulative_and_empty_ones_at_the_beginning_are_left_out():
    histogram = Histogram((0.5, 1, 2.5))
    histogram.observe([1.0, 0.75, 3.0])
    buckets, total, count = histogram.drain()
    assert (list(buckets), total, count) == ([("1", 2), ("2.5", 2), ("+Inf", 3)], 4.75, 3)


def test_a_value_counts_as_often_as_it_was_seen():
    histogram = Histogram((1,))
    histogram.observe(0.5, times=16)
    histogram.observe(np.float32(2))
    buckets, total, count = histogram.drain()
    assert (list(buckets), total, count) == ([("1", 16), ("+Inf", 17)], 10.0, 17)


def test_what_was_taken_is_gone():
    histogram = Histogram((1,))
    histogram.observe(0.5)
    histogram.drain()
    buckets, total, count = histogram.drain()
    assert (list(buckets), total, count) == ([], 0.0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_every_value_up_to_the_bound(seed):
    values = np.random.default_rng(seed).lognormal(-4, 1.5, 500)
    bounds = (0.001, 0.01, 0.1, 1)
    histogram = Histogram(bounds)
    for part in np.array_split(values, 7):
        histogram.observe(part)
    buckets = dict(histogram.drain()[0])
    assert buckets == {f"{bound:g}": int((values <= bound).sum()) for bound in bounds} | {"+Inf": 500}
