"""The moving average, against sums done by hand."""

import pytest
import torch
from torch import nn

from training.averaging import averaged


def constant(value):
    """A network whose weights and statistics all have that value."""
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(value)
    return network


def weight(average):
    return average.state_dict()["module.0.weight"].item()


def test_it_begins_as_the_network_and_then_follows_it_by_the_decay():
    average = averaged(constant(0.0), decay=0.2)
    average.update_parameters(constant(4.0))
    assert weight(average) == 4.0
    expected = 4.0
    for value in (8.0, 2.0, 6.0):
        average.update_parameters(constant(value))
        # While (1 + n) / (10 + n) is below the decay, n = 1, 2, 3 averages so far, that is the share that stays.
        stays = min(0.2, (1 + int(average.n_averaged) - 1) / (10 + int(average.n_averaged) - 1))
        expected = stays * expected + (1 - stays) * value
        for tensor in average.module.parameters():
            assert tensor.detach().item() == pytest.approx(expected)
        assert average.state_dict()["module.1.running_mean"].item() == pytest.approx(expected)
        assert average.state_dict()["module.1.num_batches_tracked"].item() == int(value)


def test_over_many_steps_it_looks_back_over_as_many_as_the_decay_says():
    average = averaged(constant(0.0), decay=0.9)
    for _ in range(200):
        average.update_parameters(constant(0.0))
    for _ in range(10):
        average.update_parameters(constant(1.0))
    assert weight(average) == pytest.approx(1 - 0.9**10)


def test_the_network_is_not_changed():
    network = constant(3.0)
    average = averaged(network, 0.9)
    average.update_parameters(constant(1.0))
    assert {tensor.item() for tensor in network.state_dict().values()} == {3.0}
