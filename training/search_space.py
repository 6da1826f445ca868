"""The section `search` of params.yaml: how a search goes, and the space it samples, as Optuna's distributions."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from training.errors import ParameterError
from training.model import ModelParams, build_network, resolve
from training.optimization import TrainParams
from training.params import PARAMS_FILE, current_name, load_params, overrides_of, params_from, rename_parameters

_SPACE = "search.space."


@dataclass(frozen=True)
class SearchParams:
    """The section `search` of params.yaml, which explains each; `space` is checked by SearchSpace."""

    SECTION: ClassVar[str] = "search"

    trials: int
    epochs: int
    random_trials: int
    startup_trials: int
    warmup_epochs: int
    seed: int
    space: dict[str, Any]

    def __post_init__(self) -> None:
        for key in ("trials", "epochs"):
            _require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        for key in ("random_trials", "startup_trials", "warmup_epochs", "seed"):
            _require(getattr(self, key) >= 0, key, getattr(self, key), "at least 0")
        _require(self.seed < 2**31, "seed", self.seed, "below 2**31")


def load_search_params(overrides: Sequence[str] = (), file: Path = PARAMS_FILE) -> SearchParams:
    """Read the section.

    Args:
        overrides: `search.key=value`, and for one parameter of the space `search.space.train.lr={low: 0.01, high: 0.1}`
            or `search.space.train.lr=null`, which leaves it out; other sections' are passed over.
        file: the YAML file.

    Raises:
        ParameterError: as `load_params` does.
    """
    of_space = [override for override in overrides if override.startswith(_SPACE)]
    params = load_params(SearchParams, [override for override in overrides if override not in of_space], file)
    given = overrides_of(SearchParams.SECTION, of_space)
    of_file = rename_parameters(params.space, f"search.space of {file}")
    of_line = {key.removeprefix("space."): value for key, value in given.items()}
    space = of_file | rename_parameters(of_line, "search.space on the command line")
    return replace(params, space={key: value for key, value in space.items() if value is not None})


def _require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise ParameterError(f"search.{key} is {value}; expected {expected}")


Distribution = FloatDistribution | IntDistribution | CategoricalDistribution

_SECTIONS: dict[str, type[TrainParams] | type[ModelParams]] = {"train": TrainParams, "model": ModelParams}
_NOT_SEARCHED = {
    "train.epochs": "every trial has search.epochs",
    "train.seed": "a seed with a better metric is luck, not a better setting",
}


class SearchSpace:
    """What the trials of a search draw, and what they share.

    Optuna's values are plain ones, except lists (model.filters), which its storage does not take: they are JSON there.

    Args:
        space: `section.key` to `{low, high, log}` for a number, or to a list of values.
        train: what the trials share, `epochs` being those of a trial.
        model: likewise.

    Raises:
        ParameterError: an unknown key, a range or a list that makes no sense, or an end of a range or a value that the
            section or the network rejects; the message names the key.

    Attributes:
        distributions: `section.key` to what `Study.ask` takes.
    """

    def __init__(self, space: Mapping[str, Any], train: TrainParams, model: ModelParams) -> None:
        _try_network(model)  # what params.yaml itself has wrong must not be laid to the space
        self._shared = {"train": dataclasses.asdict(train), "model": dataclasses.asdict(model)}
        if not space:
            raise ParameterError(
                "search.space is empty; expected what to vary, such as {train.lr: {low: 0.01, high: 0.1, log: true}}"
            )
        self.distributions = {str(key): self._distribution(str(key), given) for key, given in space.items()}

    def sections(self, values: Mapping[str, Any]) -> tuple[TrainParams, ModelParams]:
        """Return the parameters of a trial with these values; raises ParameterError where they do not go together."""
        changed = {name: dict(shared) for name, shared in self._shared.items()}
        for key, value in values.items():
            section, _, field = key.partition(".")
            changed[section][field] = _plain(value)
        return params_from(TrainParams, changed["train"]), params_from(ModelParams, changed["model"])

    def start(self) -> dict[str, Any] | None:
        """Return the values of params.yaml itself; None where one of them lies outside the space."""
        model = dataclasses.asdict(resolve(self.sections({})[1]))  # null stands for a value of the network's own
        values = {}
        for key, distribution in self.distributions.items():
            section, _, field = key.partition(".")
            value = self._shared[section][field]
            if section == "model" and not _contains(distribution, value):
                value = model[field]
            if not _contains(distribution, value):
                return None
            values[key] = _stored(value)
        return values

    def settings(self) -> dict[str, Any]:
        """Return what metrics of trials depend on besides their values: the space, and what the trials share."""
        shared = {f"{name}.{key}": value for name, section in self._shared.items() for key, value in section.items()}
        space = {f"search.space.{key}": _describe(value) for key, value in self.distributions.items()}
        settings = space | {key: value for key, value in shared.items() if key not in self.distributions}
        settings["search.epochs"] = settings.pop("train.epochs")
        plain: dict[str, Any] = json.loads(json.dumps(settings))  # as they come back from Optuna's storage
        return plain

    def check_overrides(self, overrides: Sequence[str]) -> None:
        """Reject an override of a parameter that each trial sets itself: it would be a silent no-op."""
        for override in overrides:
            key = current_name(override.partition("=")[0])
            if key in self.distributions:
                raise ParameterError(
                    f"{override!r} is not read here: {key} is searched; leave it out, or out of the space with "
                    f"search.space.{key}=null"
                )
            if key == "train.epochs":
                raise ParameterError(f"{override!r} is not read here: {_NOT_SEARCHED[key]}")

    def _distribution(self, key: str, given: Any) -> Distribution:
        name = f"search.space.{key}"
        section, _, field = key.partition(".")
        if section not in _SECTIONS:
            raise ParameterError(f"{name}: only train.KEY and model.KEY can be searched")
        known = [field.name for field in dataclasses.fields(_SECTIONS[section])]
        if field not in known:
            raise ParameterError(f"{name}: {key} is not a parameter; known: {', '.join(known)}")
        if key in _NOT_SEARCHED:
            raise ParameterError(f"{name} cannot be searched: {_NOT_SEARCHED[key]}")
        if isinstance(given, dict):
            return self._range(key, given)
        if isinstance(given, list):
            return self._choice(key, given)
        raise ParameterError(f"{name} is {given!r}; expected {{low: …, high: …}} or a list of values")

    def _range(self, key: str, given: dict[str, Any]) -> FloatDistribution | IntDistribution:
        name = f"search.space.{key}"
        kind = _number_type(key)
        if kind is None:
            raise ParameterError(f"{name} is {given!r}, but {key} is no number; expected a list of values")
        if given.keys() - {"low", "high", "log"} or {"low", "high"} - given.keys():
            raise ParameterError(f"{name} is {given!r}; expected {{low: …, high: …}}, with log: true if wanted")
        log = given.get("log", False)
        if not isinstance(log, bool):
            raise ParameterError(f"{name}.log is {log!r}; expected bool")
        for end in ("low", "high"):
            if given[end] is None:
                raise ParameterError(f"{name}.{end} is None; expected {kind.__name__}")
        low, high = (self._checked(key, given[end], f"{name}.{end}") for end in ("low", "high"))
        if low > high:
            raise ParameterError(f"{name}.low is {low}; expected at most high, {high}")
        if log and low <= 0:
            raise ParameterError(f"{name}.low is {low}; expected above 0, where a logarithm exists (log: true)")
        return IntDistribution(low, high, log=log) if kind is int else FloatDistribution(low, high, log=log)

    def _choice(self, key: str, given: list[Any]) -> CategoricalDistribution:
        name = f"search.space.{key}"
        if not given:
            raise ParameterError(f"{name} is an empty list; expected at least one value")
        values = [_stored(self._checked(key, value, name)) for value in given]
        for value in values:
            if values.count(value) > 1:
                raise ParameterError(f"{name} has {value!r} more than once")
        return CategoricalDistribution(values)

    def _checked(self, key: str, value: Any, name: str) -> Any:
        """Return `value` as its parameter's type; `name` is where it stands in params.yaml."""
        section, _, field = key.partition(".")
        try:
            train, model = self.sections({key: value})
            _try_network(model)
        except ParameterError as error:
            raise ParameterError(f"{name}: {error}") from None
        return getattr({"train": train, "model": model}[section], field)


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Return Optuna's values as `section.key=value`, which other commands take; they read the same values."""
    return [f"{key}={_text(value)}" for key, value in values.items()]


def _try_network(model: ModelParams) -> None:
    with torch.device("meta"):  # shapes without numbers: costs nothing, and leaves the random numbers alone
        build_network(model)


def _stored(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, tuple) else value


def _plain(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _contains(distribution: Distribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return _stored(value) in distribution.choices
    return value is not None and distribution.low <= value <= distribution.high


def _describe(distribution: Distribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(_text(value) for value in distribution.choices)
    return f"{distribution.low} to {distribution.high}{', log' if distribution.log else ''}"


def _number_type(key: str) -> type[int] | type[float] | None:
    section, _, field = key.partition(".")
    hint = typing.get_type_hints(_SECTIONS[section])[field]
    options = typing.get_args(hint) if typing.get_origin(hint) is types.UnionType else (hint,)
    return int if int in options else float if float in options else None
