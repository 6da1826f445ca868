"""Presets: a network and its recipe, written into params.yaml, so that everything after it works as always.

`python -m training.preset wide`, then `dvc repro`, `dvc exp run -S …`, or stage by stage. `git diff params.yaml` shows
what it changed, `python -m training.preset default` takes it back.
"""

import io
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from ruamel.yaml import YAML

from cifar.common.console import console, run_stage
from cifar.common.files import atomic_write
from training.errors import ParameterError
from training.params import PARAMS_FILE, RENAMED

PRESETS = Path(__file__).resolve().parent / "presets"


def apply_preset(preset: str, file: Path = PARAMS_FILE) -> dict[str, tuple[Any, Any]]:
    """Write a preset's values into params.yaml, and leave its comments and all else as they are.

    Args:
        preset: of a file in training/presets/, without its ending.
        file: the params.yaml.

    Returns:
        What changed: `section.key` to the value before and the value now.

    Raises:
        ParameterError: no such preset, or params.yaml lacks a key of it; nothing is written.
    """
    sections = read_preset(preset)
    if not file.exists():
        raise ParameterError(f"{file} is missing; run this from the repository root")
    parser = YAML()
    parser.preserve_quotes = True
    parser.width = 200
    parser.representer.add_representer(type(None), _null)
    document = parser.load(file.read_text(encoding="utf-8"))
    changes = {}
    for section, values in sections.items():
        for name, value in values.items():
            key = name if name in document.get(section, {}) else _old_name(section, name)
            if key not in document.get(section, {}):
                raise ParameterError(f"the preset {preset} sets {section}.{name}, which {file} does not have")
            before = document[section][key]
            if before != value:
                changes[f"{section}.{key}"] = (before, value)
                document[section][key] = value
    buffer = io.StringIO()
    parser.dump(document, buffer)
    with atomic_write(file) as temporary:
        temporary.write_text(buffer.getvalue(), encoding="utf-8")
    return changes


def read_preset(name: str) -> dict[str, dict[str, Any]]:
    """Return a preset's sections; raises ParameterError with the names that there are."""
    known = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in known:
        raise ParameterError(f"there is no preset {name!r}; there are {', '.join(known)}")
    sections: dict[str, dict[str, Any]] = yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
    return sections


def main(
    name: Annotated[str, typer.Argument(help="default, or wide")],
    file: Annotated[Path, typer.Option(help="the file to change")] = PARAMS_FILE,
) -> None:
    """Write a preset into params.yaml."""
    changes = apply_preset(name, file)
    for key, (before, now) in changes.items():
        console.print(f"{key}: {before} → {now}", markup=False, highlight=False, soft_wrap=True)
    if not changes:
        console.print(f"{file} is the preset {name} already")


def _old_name(section: str, key: str) -> str:
    """Return what an older params.yaml calls a parameter."""
    old = next((old for old, new in RENAMED.items() if new == f"{section}.{key}"), f"{section}.{key}")
    return old.partition(".")[2]


def _null(representer: Any, _: None) -> Any:
    """Spell it out: an empty value after a key reads like a slip."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


if __name__ == "__main__":
    run_stage(main)
