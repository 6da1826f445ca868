"""How a search goes: the section `search` of params.yaml, checked before any work."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from training.errors import ParameterError
from training.params import PARAMS_FILE, load_params, overrides_of

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
    space = params.space | {key.removeprefix("space."): value for key, value in given.items()}
    return replace(params, space={key: value for key, value in space.items() if value is not None})


def _require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise ParameterError(f"search.{key} is {value}; expected {expected}")
