"""Presets: what they write into params.yaml, and what they leave."""

from pathlib import Path

import pytest
import yaml

from training.errors import ParameterError
from training.gate import GateParams
from training.model import ModelParams, build_classifier
from training.optimization import TrainParams
from training.params import load_params
from training.preset import PRESETS, apply_preset, read_preset

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))


@pytest.fixture
def file(tmp_path):
    copy = tmp_path / "params.yaml"
    copy.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    return copy


def comments(path):
    return [line.partition("#")[2] for line in path.read_text().splitlines()]


def test_params_yaml_as_it_comes_is_the_preset_default(file):
    assert apply_preset("default", file) == {}
    assert file.read_bytes() == (REPOSITORY / "params.yaml").read_bytes()


def test_every_preset_sets_the_same_keys_so_that_each_takes_the_others_back(file):
    keys = [[(section, key) for section, values in read_preset(name).items() for key in values] for name in NAMES]
    assert NAMES == ["default", "wide"]
    assert keys[0] == keys[1]
    apply_preset("wide", file)
    apply_preset("default", file)
    before = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    assert yaml.safe_load(file.read_text()) == before
    assert comments(file) == comments(REPOSITORY / "params.yaml")


def test_a_preset_sets_a_parameter_that_the_file_has_under_its_old_name(file):
    file.write_text(file.read_text().replace("  flip_tta: false", "  mirror: false"))
    assert apply_preset("wide", file)["model.mirror"] == (False, True)
    assert load_params(ModelParams, (), file).flip_tta


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_read_back_by_the_stages(file, name):
    apply_preset(name, file)
    for section in (TrainParams, ModelParams, GateParams):
        params = load_params(section, (), file)
        for key, value in read_preset(name)[section.SECTION].items():
            got = getattr(params, key)
            assert (list(got) if isinstance(got, tuple) else got) == value


def test_what_changed_is_shown(file):
    changes = apply_preset("wide", file)
    assert changes["train.scheduler"] == ("plateau", "one_cycle")
    assert apply_preset("wide", file) == {}


def test_wide_is_three_convolutions_of_at_most_12_megabytes(file):
    apply_preset("wide", file)
    network = build_classifier(load_params(ModelParams, (), file)).network
    assert sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()) <= 12e6
    assert len([name for name in network.state_dict() if name.startswith("conv") and name.endswith("weight")]) == 3


def test_an_unknown_preset_is_rejected_with_those_that_there_are(file):
    with pytest.raises(ParameterError, match="no preset 'huge'; there are default, wide"):
        apply_preset("huge", file)


def test_a_file_without_the_keys_is_left_as_it_was(file):
    file.write_text("train:\n  epochs: 3\n")
    with pytest.raises(ParameterError, match=r"sets model\.filters, which .* does not have"):
        apply_preset("wide", file)
    assert file.read_text() == "train:\n  epochs: 3\n"


def test_a_missing_file_is_rejected(tmp_path):
    with pytest.raises(ParameterError, match="run this from the repository root"):
        apply_preset("wide", tmp_path / "params.yaml")
