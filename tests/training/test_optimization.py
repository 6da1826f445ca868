"""Learning rate schedules, by their values at known steps; the moving average, against sums done by hand."""

import pytest
import torch
from torch import nn

from training.optimization import Schedule, build_optimizer, ema, lr_multiplier


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        # 0.1 of 100 steps up; then a line, or half a cosine, down.
        ("one_cycle", {0: 0.001, 5: 0.5, 10: 1.0, 55: 0.5, 91: 0.1, 100: 0.001}),
        ("cosine", {0: 0.001, 5: 0.5, 10: 1.0, 55: 0.5, 40: 0.75, 70: 0.25, 100: 0.001}),
    ],
)
def test_a_curve_rises_in_a_line_and_falls_as_its_name_says(scheduler, expected):
    factor = lr_multiplier(scheduler, 0.1, 100)
    assert {step: factor(step) for step in expected} == pytest.approx(expected)


def test_a_curve_without_warm_up_begins_at_the_top():
    assert lr_multiplier("cosine", 0.0, 10)(0) == 1.0


def run(params, epochs, steps):
    """The rate at each step, and the states of optimiser and schedule at the end."""
    optimizer = build_optimizer(nn.Linear(2, 2), params)
    schedule = Schedule(optimizer, params, steps)
    rates = []
    for _ in range(epochs):
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_batch()
        schedule.after_epoch(1.0)
    return rates, (optimizer.state_dict(), schedule.state_dict())


def test_the_rate_follows_the_curve_over_the_whole_run(train_params):
    params = train_params(scheduler="one_cycle", warmup=0.5, lr=0.2, epochs=5)
    rates, _ = run(params, 5, 4)
    assert rates == pytest.approx([0.2 * lr_multiplier("one_cycle", 0.5, 20)(step) for step in range(20)])
    assert max(rates) == pytest.approx(0.2)


def test_on_a_plateau_only_epochs_count(train_params):
    rates, _ = run(train_params(scheduler="plateau", plateau_patience=0, plateau_factor=0.1, lr=1.0), 3, 4)
    assert rates == pytest.approx([1.0] * 8 + [0.1] * 4)  # the second epoch is the first without a better loss


@pytest.mark.parametrize("scheduler", ["plateau", "one_cycle", "cosine"])
def test_a_schedule_resumes_where_its_state_was(train_params, scheduler):
    params = train_params(scheduler=scheduler, plateau_patience=0, epochs=4)
    _, end = run(params, 4, 3)
    _, half = run(params, 2, 3)
    optimizer = build_optimizer(nn.Linear(2, 2), params)
    schedule = Schedule(optimizer, params, 3)
    optimizer.load_state_dict(half[0])
    schedule.load_state_dict(half[1])
    for _ in range(2):
        for _ in range(3):
            optimizer.step()
            schedule.after_batch()
        schedule.after_epoch(1.0)
    assert (optimizer.state_dict(), schedule.state_dict()) == end


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_weight_decay_shrinks_weights_and_leaves_biases(train_params, optimizer):
    network = nn.Linear(3, 3)
    nn.init.ones_(network.weight)
    before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    built = build_optimizer(network, train_params(optimizer=optimizer, weight_decay=0.5, lr=0.01))
    for tensor in network.parameters():
        tensor.grad = torch.zeros_like(tensor)
    built.step()
    assert (network.weight.abs() < before["weight"].abs()).all()
    assert torch.equal(network.bias, before["bias"])


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
    average = ema(constant(0.0), decay=0.2)
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
    average = ema(constant(0.0), decay=0.9)
    for _ in range(200):
        average.update_parameters(constant(0.0))
    for _ in range(10):
        average.update_parameters(constant(1.0))
    assert weight(average) == pytest.approx(1 - 0.9**10)


def test_the_network_is_not_changed():
    network = constant(3.0)
    average = ema(network, 0.9)
    average.update_parameters(constant(1.0))
    assert {tensor.item() for tensor in network.state_dict().values()} == {3.0}
