"""params.yaml and its overrides: what is read, and what is rejected before any work starts."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from training.data import PrepareParams
from training.errors import ParameterError
from training.export import ArchiveParams, ExportParams
from training.gate import GateParams
from training.model import ModelParams
from training.optimization import TrainParams
from training.params import Section, check_sections, load_params, params_from
from training.search_space import SearchParams, load_search_params

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
SECTIONS: list[type[Section]] = [
    PrepareParams,
    ModelParams,
    TrainParams,
    SearchParams,
    GateParams,
    ExportParams,
    ArchiveParams,
]
DOCUMENT = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))


def train(*overrides):
    return load_params(TrainParams, overrides, PARAMS)


def written(tmp_path, text):
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_sections_of_the_file_and_of_the_code_are_the_same():
    assert {section.SECTION for section in SECTIONS} == set(DOCUMENT)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_a_field_and_every_field_a_key(section):
    assert set(DOCUMENT[section.SECTION]) == {field.name for field in dataclasses.fields(section)}


@pytest.mark.parametrize("section", SECTIONS)
def test_the_values_of_the_file_arrive_as_they_stand(section):
    read = dataclasses.asdict(load_params(section, (), PARAMS))
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in read.items()} == DOCUMENT[
        section.SECTION
    ]


OLD_NAMES = [
    (ModelParams, "model", "mirror", "flip_tta", True),
    (TrainParams, "train", "average_decay", "ema_decay", 0.25),
]


@pytest.mark.parametrize(("section", "name", "old", "new", "value"), OLD_NAMES)
def test_a_parameter_is_read_by_its_old_name_with_a_warning(tmp_path, capsys, section, name, old, new, value):
    values = {key: other for key, other in DOCUMENT[name].items() if key != new}
    file = written(tmp_path, yaml.safe_dump({name: values | {old: value}}))
    assert getattr(load_params(section, (), file), new) == value
    assert f"{name}.{old}, which is called {name}.{new} now" in capsys.readouterr().out
    assert getattr(load_params(section, [f"{name}.{old}={yaml.safe_dump(value)}"], PARAMS), new) == value
    assert f"the command line has {name}.{old}" in capsys.readouterr().out


@pytest.mark.parametrize(("section", "name", "old", "new", "value"), OLD_NAMES)
def test_a_parameter_under_both_of_its_names_is_rejected(tmp_path, section, name, old, new, value):
    file = written(tmp_path, yaml.safe_dump({name: DOCUMENT[name] | {old: value}}))
    with pytest.raises(ParameterError, match=f"{name}.{old} and {name}.{new}, which are one parameter"):
        load_params(section, (), file)
    with pytest.raises(ParameterError, match=f"{name}.{old} and {name}.{new}, which are one parameter"):
        load_params(section, [f"{name}.{old}={value}", f"{name}.{new}={value}"], PARAMS)


def test_a_search_space_is_read_by_the_old_names_too(tmp_path, capsys):
    space = {"train.average_decay": {"low": 0.9, "high": 0.99}}
    file = written(tmp_path, yaml.safe_dump({"search": DOCUMENT["search"] | {"space": space}}))
    assert load_search_params((), file).space == {"train.ema_decay": {"low": 0.9, "high": 0.99}}
    assert "train.average_decay, which is called train.ema_decay now" in capsys.readouterr().out
    with pytest.raises(ParameterError, match="which are one parameter"):
        load_search_params(
            ["search.space.train.ema_decay={low: 0.9, high: 0.99}", "search.space.train.average_decay=null"], file
        )


def test_a_missing_file_is_rejected_with_the_way_out(tmp_path):
    with pytest.raises(ParameterError, match="run this from the repository root"):
        load_params(TrainParams, (), tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["", "3", "[1, 2]", "other: {a: 1}", "archive: 3", "archive:"])
def test_a_missing_section_is_rejected(tmp_path, text):
    with pytest.raises(ParameterError, match="has no section 'archive'"):
        load_params(ArchiveParams, (), written(tmp_path, text))


@pytest.mark.parametrize("text", ["archive: {version: [", "archive: {version: 2026-99-99}"])
def test_a_file_that_is_no_yaml_is_rejected(tmp_path, text):
    with pytest.raises(ParameterError, match=r"params\.yaml is not YAML"):
        load_params(ArchiveParams, (), written(tmp_path, text))


def test_a_file_that_is_no_text_is_rejected(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"archive: {version: \xff}")
    with pytest.raises(ParameterError, match=r"params\.yaml is not YAML"):
        load_params(ArchiveParams, (), tmp_path / "params.yaml")


def test_an_unknown_key_is_rejected_with_the_known_ones(tmp_path):
    with pytest.raises(ParameterError, match=r"archive\.versoin is not a parameter; known: version"):
        load_params(ArchiveParams, (), written(tmp_path, "archive: {version: '1', versoin: '2'}"))
    with pytest.raises(ParameterError, match=r"train\.epoch is not a parameter; known: epochs"):
        train("train.epoch=3")


def test_a_missing_key_is_rejected(tmp_path):
    with pytest.raises(ParameterError, match=r"archive\.version is missing"):
        load_params(ArchiveParams, (), written(tmp_path, "archive: {}"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs=true", "expected int"),
        ("train.epochs='3'", "expected int"),
        ("train.epochs=3.0", "expected int"),
        ("train.epochs=", "expected int"),
        ("train.epochs=[3]", "expected int"),
        ("train.flip=1", "expected bool"),
        ("train.flip='true'", "expected bool"),
        ("train.lr=true", "expected float"),
        ("train.lr=fast", "expected float"),
        ("train.lr=null", "expected float"),
        ("train.lr=.nan", "expected a finite number"),
        ("train.lr=.inf", "expected a finite number"),
        ("train.lr=inf", "expected a finite number"),
        ("train.optimizer=rmsprop", "expected one of sgd, adam, adamw"),
        ("train.device=3", "expected one of"),
        ("train.epochs=0", "at least 1"),
        ("train.batch_size=0", "at least 1"),
        ("train.early_stopping_patience=0", "at least 1"),
        ("train.weight_decay=-0.1", "at least 0"),
        ("train.crop_padding=-1", "at least 0"),
        ("train.crop_padding=32", "below the image's 32 pixels"),
        ("train.plateau_patience=-1", "at least 0"),
        ("train.seed=-1", "at least 0"),
        ("train.lr=0", "above 0"),
        ("train.seed=9223372036854775808", "below 2"),
        ("train.momentum=1.0", "below 1"),
        ("train.label_smoothing=1.0", "below 1"),
        ("train.label_smoothing=-0.1", "at least 0"),
        ("train.ema_decay=1.0", "below 1"),
        ("train.warmup=1.0", "below 1"),
        ("train.cutout=-1", "at least 0"),
        ("train.cutout=33", "at most the image's 32 pixels"),
        ("train.scheduler=step", "expected one of plateau, one_cycle, cosine"),
        ("train.precision=fp16", "expected one of auto, fp32, bf16"),
        ("train.compile=yes please", "expected bool"),
        ("train.plateau_factor=1.0", "between 0 and 1"),
        ("train.plateau_factor=0", "between 0 and 1"),
    ],
)
def test_a_value_of_a_wrong_type_or_out_of_range_is_rejected_by_name(override, expected):
    with pytest.raises(ParameterError, match=expected) as caught:
        train(override)
    assert str(caught.value).startswith(override.split("=")[0])


@pytest.mark.parametrize("tolerance", ["0", "-1e-5"])
def test_a_tolerance_of_nothing_is_rejected(tolerance):
    with pytest.raises(ParameterError, match=r"export\.tolerance"):
        load_params(ExportParams, [f"export.tolerance={tolerance}"], PARAMS)


@pytest.mark.parametrize("override", ["epochs=5", "train.epochs", "train=5", "=5", ".=5", "train.=5"])
def test_an_override_without_section_key_and_value_is_rejected_with_an_example(override):
    with pytest.raises(ParameterError, match=r"section\.key=value, such as train\.epochs=5"):
        train(override)


@pytest.mark.parametrize("value", ["[1", "2026-99-99", "{a"])
def test_an_override_whose_value_is_no_yaml_is_rejected(value):
    with pytest.raises(ParameterError, match="the value is not YAML"):
        train(f"train.epochs={value}")


def test_an_override_changes_its_key_and_nothing_else_and_the_last_one_holds():
    assert train("train.epochs=5", "train.epochs=7") == dataclasses.replace(train(), epochs=7)


def test_overrides_of_other_sections_are_passed_over_when_reading():
    assert train("model.name=SimpleCNN") == train()


def test_an_override_that_a_command_would_not_read_is_rejected():
    check_sections(["train.epochs=5", "model.name=SimpleCNN"], TrainParams, ModelParams)
    with pytest.raises(ParameterError, match=r"'prepare\.seed=1' is not read here.* train, model"):
        check_sections(["train.epochs=5", "prepare.seed=1"], TrainParams, ModelParams)


@pytest.mark.parametrize(("text", "number"), [("1e-3", 0.001), ("1E3", 1000.0), ("2", 2.0), ("0.5", 0.5)])
def test_numbers_are_read_as_people_write_them(text, number):
    value = train(f"train.lr={text}").lr
    assert value == number
    assert type(value) is float


@pytest.mark.parametrize("version", ["1.10", "2.0", "1e3", "null", "0123", "true"])
def test_a_version_stays_the_text_that_was_typed(version):
    assert load_params(ArchiveParams, [f"archive.version={version}"], PARAMS).version == version


def test_a_version_without_quotes_in_the_file_is_rejected_rather_than_shortened(tmp_path):
    with pytest.raises(ParameterError, match=r"archive\.version is 1\.1; expected str"):
        load_params(ArchiveParams, (), written(tmp_path, "archive: {version: 1.10}"))


def test_a_path_may_contain_an_equals_sign():
    assert load_params(PrepareParams, ["prepare.path=a=b.tar"], PARAMS).path == "a=b.tar"


def test_lists_become_tuples_and_their_numbers_are_checked():
    params = load_params(ModelParams, ["model.filters=[8, 16, 16]", "model.mean=[0, 0.5, 1]"], PARAMS)
    assert (params.filters, params.mean) == ((8, 16, 16), (0.0, 0.5, 1.0))
    for wrong in ("filters=8", "filters=[8, '16', 16]", "filters=[8, 1.5, 16]", "mean=[.nan, 0.5, 0.5]"):
        with pytest.raises(ParameterError, match=rf"model\.{wrong.split('=')[0]}"):
            load_params(ModelParams, [f"model.{wrong}"], PARAMS)


def test_null_is_taken_where_a_default_stands_behind_it_and_nowhere_else():
    assert load_params(ModelParams, ["model.dropout=null"], PARAMS).dropout is None
    with pytest.raises(ParameterError, match=r"model\.name is None"):
        load_params(ModelParams, ["model.name=null"], PARAMS)


def test_an_optional_value_is_checked_as_strictly_as_another():
    for wrong in ("batch_norm=1", "hidden_width=true", "dropout=half", "activation=tanh"):
        with pytest.raises(ParameterError, match=rf"model\.{wrong.split('=')[0]}"):
            load_params(ModelParams, [f"model.{wrong}"], PARAMS)


def test_plain_values_make_the_same_section():
    values = DOCUMENT["model"]
    assert params_from(ModelParams, values) == load_params(ModelParams, (), PARAMS)
    with pytest.raises(ParameterError, match=r"model\.std is missing"):
        params_from(ModelParams, {key: value for key, value in values.items() if key != "std"})


@pytest.mark.parametrize("stage", ["train", "evaluate", "export", "data"])
def test_every_command_rejects_an_override_of_a_section_that_it_does_not_read(stage, monkeypatch):
    import importlib

    monkeypatch.chdir(PARAMS.parent)
    module = importlib.import_module(f"training.{stage}")
    with pytest.raises(ParameterError, match="is not read here"):
        module.main(["nonsense.key=1"])
