"""The checkout: where its files are, and the names that all layers share."""

import json
from pathlib import Path

from cifar.common.errors import NoCheckout

MODEL_NAME = "cifar"
IMAGE_SIZE = 32  # pixels a side
IMAGE_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)  # rows, columns, RGB

_PACKAGE = Path(__file__).resolve().parent.parent
ROOT = _PACKAGE.parent
CONFIG = ROOT / "config.properties"
MODEL_STORE = ROOT / "model_store"
RUN_DIR = ROOT / "run"
MONITOR_DIR = ROOT / "monitor"
# Installed without its checkout, the package has a copy of the folder (pyproject.toml).
HANDLER = ROOT / "handler" if CONFIG.is_file() else _PACKAGE / "_handler"


def check_checkout(what: str) -> None:
    """Raise NoCheckout where only the package is installed.

    Args:
        what: what needs the checkout, as the subject of a sentence.
    """
    if not CONFIG.is_file():
        raise NoCheckout(
            f"{what} needs the checkout, and only the package is installed ({_PACKAGE}). Clone the repository, and "
            "there: pip install -e ."
        )


def class_names() -> tuple[str, ...]:
    """Return the ten names; the position of a name is its class index. Their owner is handler/index_to_name.json."""
    names: dict[str, str] = json.loads((HANDLER / "index_to_name.json").read_text(encoding="utf-8"))
    return tuple(names[str(index)] for index in range(len(names)))
