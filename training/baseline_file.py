"""The file of a baseline (training/baseline.py), `baseline.json` beside the weights that it is of."""

from pathlib import Path
from typing import Any

from cifar.common.files import read_json, write_json

BASELINE_NAME = "baseline.json"


def write_baseline(baseline: dict[str, Any], weights: Path, weights_digest: str, temperature: float) -> None:
    """Write a baseline beside the weights that it is of."""
    write_json(
        baseline | {"weights_digest": weights_digest, "temperature": temperature}, weights.parent / BASELINE_NAME
    )


def read_baseline(weights: Path, weights_digest: str, temperature: float) -> dict[str, Any] | None:
    """Return the baseline beside a weights file; None where there is none, or where it is of others.

    Of others is one that was measured before the weights were calibrated anew, too: confidences were others then.

    Raises:
        WeightsError: the file is no JSON object.
    """
    content = read_json(weights.parent / BASELINE_NAME)
    if not content or (content.pop("weights_digest", None), content.pop("temperature", None)) != (
        weights_digest,
        temperature,
    ):
        return None
    return content
