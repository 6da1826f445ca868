"""A short drill with real programs: a fault reaches the webhook by its alert and by no other, and its end does too."""

import numpy as np
import pytest

from cifar.common.errors import ProgramMissing
from drill.run import play
from drill.sandbox import run_sandbox
from drill.scenarios import SCENARIOS, Inputs
from drill.time_compression import TimeCompression
from tests.support.programs import need
from tests.support.tiny import copy_handler, tiny_archive

# A worker is there within 20 s even on a busy machine.
QUICK = TimeCompression(divisor=60, shortest_window_s=15, shortest_for_s=20)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    need("prometheus")
    need("amtool")  # beside Alertmanager, whose own name differs
    folder = tmp_path_factory.mktemp("drill")
    archive = tiny_archive(folder / "tiny", "1.0", 1, copy_handler(folder / "handler"))
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    with run_sandbox(folder / "sandbox", archive, images, QUICK, clients=2, rate=20) as sandbox:
        yield sandbox


@pytest.mark.parametrize("name", ["server", "bad-inputs"])
def test_an_alert_reaches_the_webhook_and_so_does_its_end(sandbox, name):
    [scenario] = [scenario for scenario in SCENARIOS if scenario.name == name]
    inputs = Inputs(sandbox.folder, sandbox.traffic.images, sandbox.traffic.images)
    outcome = play(scenario, sandbox, inputs, lambda doing: None, quiet_s=3)
    assert set(outcome.notified) == scenario.alerts
    assert not outcome.unexpected
    assert outcome.cleared is not None
    assert outcome.passed
    assert all(outcome.descriptions.values())


def test_a_missing_program_is_named_with_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(ProgramMissing, match=r"Prometheus \(prometheus\) and Alertmanager .* sudo apt-get install"),
        run_sandbox(tmp_path / "sandbox", tmp_path / "none.mar", np.zeros((1, 32, 32, 3), np.uint8), QUICK),
    ):
        pass
