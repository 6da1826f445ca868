"""Reads a section of `params.yaml` into a frozen dataclass, and rejects what does not fit it before any work starts."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from cifar.common.console import console
from training.errors import ParameterError

PARAMS_FILE = Path("params.yaml")

# Old names, read with a warning until release 0.3.0.
RENAMED = {"model.mirror": "model.flip_tta", "train.average_decay": "train.ema_decay"}


class Section(Protocol):
    """A dataclass of parameters; `SECTION` is its key in `params.yaml`."""

    SECTION: typing.ClassVar[str]
    __dataclass_fields__: typing.ClassVar[dict[str, Any]]


S = TypeVar("S", bound=Section)


def load_params(section: type[S], overrides: Sequence[str] = (), file: Path = PARAMS_FILE) -> S:
    """Read one section.

    Args:
        section: the dataclass to fill; checks of ranges stand in its `__post_init__`.
        overrides: `section.key=value` in YAML's notation, as `dvc exp run -S` takes; other sections' are passed over.
        file: the YAML file.

    Raises:
        ParameterError: file or section missing, unknown or missing key, wrong type, a value that the section rejects.
    """
    values = _read_section(file, section.SECTION)
    # A version such as 1.10 must not turn into the number 1.1 on its way.
    text_keys = [key for key, hint in typing.get_type_hints(section).items() if hint is str]
    values |= overrides_of(section.SECTION, overrides, text_keys)
    return params_from(section, values)


def params_from(section: type[S], values: dict[str, Any]) -> S:
    """Fill the dataclass `section` from plain values; raises ParameterError as `load_params` does."""
    hints = typing.get_type_hints(section)
    known = {field.name: hints[field.name] for field in dataclasses.fields(section)}
    for key in values.keys() - known.keys():
        raise ParameterError(f"{section.SECTION}.{key} is not a parameter; known: {', '.join(known)}")
    for key in known.keys() - values.keys():
        raise ParameterError(f"{section.SECTION}.{key} is missing")
    return section(**{key: _cast(values[key], hint, f"{section.SECTION}.{key}") for key, hint in known.items()})


def check_sections(overrides: Sequence[str], *sections: type[Section]) -> None:
    """Reject an override that none of the sections of a command would read: it would be a silent no-op."""
    names = [section.SECTION for section in sections]
    for override in overrides:
        if _split(override)[0] not in names:
            raise ParameterError(f"{override!r} is not read here; this command reads the sections {', '.join(names)}")


def overrides_of(name: str, overrides: Sequence[str], text_keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return the values that `section.key=value` gives to the section `name`; raises ParameterError.

    Values are YAML, except those of `text_keys`, which are taken as they stand.
    """
    values = {}
    for override in overrides:
        section, key, text = _split(override)
        if section == name:
            try:
                values[key] = text if key in text_keys else yaml.safe_load(text)
            except (yaml.YAMLError, ValueError):  # ValueError: a date such as 2026-99-99
                raise ParameterError(f"{override!r}: the value is not YAML") from None
    return rename_parameters(values, "the command line", name)


def current_name(key: str) -> str:
    """Return the name that `section.key` has now."""
    return RENAMED.get(key, key)


def rename_parameters(values: Mapping[str, Any], where: str, section: str = "") -> dict[str, Any]:
    """Give parameters their current names; each old one is shown with a warning.

    Args:
        values: by key of `section`, or by `section.key`.
        where: what they were read from, for messages.
        section: that of the keys.

    Raises:
        ParameterError: a value stands under its old and its current name.
    """
    prefix = f"{section}." if section else ""
    renamed = {}
    for key, value in values.items():
        old = f"{prefix}{key}"
        new = current_name(old)
        if new != old:
            if new.removeprefix(prefix) in values:
                raise ParameterError(f"{where} has {old} and {new}, which are one parameter; keep {new}")
            _warn(f"{where} has {old}, which is called {new} now; release 0.3.0 will not read the old name")
        renamed[new.removeprefix(prefix)] = value
    return renamed


def _warn(text: str) -> None:
    console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _read_section(file: Path, name: str) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParameterError(f"{file} is missing; run this from the repository root") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date such as 2026-99-99
        raise ParameterError(f"{file} is not YAML: {error}") from None
    section = document.get(name) if isinstance(document, dict) else None
    if not isinstance(section, dict):
        raise ParameterError(f"{file} has no section {name!r}")
    return rename_parameters(section, str(file), name)


def _split(override: str) -> tuple[str, str, str]:
    path, equals, text = override.partition("=")
    section, dot, key = path.partition(".")
    if not (equals and dot and key):
        raise ParameterError(f"{override!r} is not of the form section.key=value, such as train.epochs=5")
    return section, key, text


def _cast(value: Any, hint: Any, name: str) -> Any:
    """Return `value` as the type `hint` says, or reject it: 1 is a float, True is no int, "3" is no number."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ParameterError(f"{name} is {value!r}; expected a list")
        return tuple(_cast(item, typing.get_args(hint)[0], name) for item in value)
    if typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            raise ParameterError(f"{name} is {value!r}; expected one of {', '.join(map(str, typing.get_args(hint)))}")
        return value
    hint = typing.get_origin(hint) or hint  # of dict[str, Any]; what is in it is for the section to check
    if hint is float:
        value = _float(value, name)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ParameterError(f"{name} is {value!r}; expected {hint.__name__}")
    return value


def _float(value: Any, name: str) -> Any:
    """Return a number as a float, anything else as it is; reject infinity and NaN, which fit no parameter."""
    if isinstance(value, str):
        value = _number_yaml_misses(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ParameterError(f"{name} is {value}; expected a finite number")
    return value


def _number_yaml_misses(text: str) -> float | str:
    """YAML 1.1 reads 1e-3 (without a point) as a string; a number is meant."""
    try:
        return float(text)
    except ValueError:
        return text
