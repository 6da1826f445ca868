"""Measures what the drift alerts are worth: false alarms on clean traffic, seconds until a corruption is detected.

Usage: make data; python -m benchmarks.drift [--output FILE]

The baseline is of the test images; traffic is drawn from the validation images, which it has not seen. The arithmetic
of the rules is repeated on arrays (benchmarks/drift_scores.py): years of traffic in minutes.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.drift_scores import Pool, count_pictures, read_thresholds, score_windows
from cifar.common.console import run_stage
from cifar.common.files import atomic_write, digest_file
from cifar.common.project import ROOT
from training.corruptions import corrupt
from training.data import DATA_FILE, load_dataset
from training.errors import TrainingError
from training.evaluate import read_baseline
from training.model import Classifier
from training.weights import WEIGHTS_FILE, load_classifier

RESULTS = ROOT / "benchmarks" / "results" / "drift.md"
PRETRAINED = ROOT / "training" / "pretrained"
VERSION, OTHER_VERSION = "1.0", "2.0"

THRESHOLDS = {
    "CifarInputDrift": "threshold:cifar_input_drift:ks",
    "CifarPredictionMixShifted": "threshold:cifar_prediction_shift:distance",
    "CifarConfidenceFallen": "threshold:cifar_confidence_fall:difference",
}
CORRUPTIONS = ("gaussian_noise", "gaussian_blur", "contrast")
SEVERITIES = (1, 3, 5)
WINDOW_S, STEP_S, DAY_S = 900, 5, 86_400  # of the rules and of their evaluation
DAYS, ONSETS, PAIRS = 365, 200, 100_000


def main(
    data: Annotated[Path, typer.Option(help="the prepared data set")] = DATA_FILE,
    output: Annotated[Path, typer.Option(help="the table to write")] = RESULTS,
) -> None:
    """Draw days, pairs of versions and onsets of corruptions; write how often and how soon each alert fires."""
    classifier, baseline = _load(VERSION)
    images = load_dataset(data).validation_images
    clean, other = count_pictures(classifier, images), count_pictures(_load(OTHER_VERSION)[0], images)
    thresholds = read_thresholds(ROOT / "alerts" / "thresholds.yaml")
    limits = {alert: thresholds[name] for alert, name in THRESHOLDS.items()}
    generator = np.random.default_rng(0)
    fewest = int(thresholds["threshold:cifar_images:count"])
    days = {
        images_a_window: _draw_days(clean, images_a_window, baseline, generator) for images_a_window in (fewest, 900)
    }
    compared = int(thresholds["threshold:cifar_version_images:count"])
    distances = _compare_versions(clean, other, compared, generator)
    delays = {
        (name, severity): _measure_delays(
            clean, count_pictures(classifier, corrupt(images, name, severity, 0)), baseline, limits, generator
        )
        for name, severity in track(
            [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES], "corruptions"
        )
    }
    limit = thresholds["threshold:cifar_disagreement:distance"]
    report = [
        *_report_false_alarms(days, limits, len(images)),
        *_report_versions(distances, limit, compared),
        *_report_delays(delays),
    ]
    with atomic_write(output) as temporary:
        temporary.write_text("\n".join(report) + "\n", encoding="utf-8")
    typer.echo(output.read_text(encoding="utf-8"))


def _load(version: str) -> tuple[Classifier, dict[str, Any]]:
    weights = PRETRAINED / version / WEIGHTS_FILE.name
    classifier = load_classifier(weights, [])
    baseline = read_baseline(weights, digest_file(weights), classifier.temperature)
    if baseline is None:
        raise TrainingError(f"{weights} has no baseline beside it: python -m training.evaluate --weights {weights}")
    return classifier, baseline


def _draw_days(
    clean: Pool, images_a_window: int, baseline: Any, generator: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Return, by alert, the highest score of each clean day, scored every few seconds."""
    a_day, step = DAY_S * images_a_window // WINDOW_S, max(1, STEP_S * images_a_window // WINDOW_S)
    ends = np.arange(images_a_window, a_day + 1, step)
    highest: dict[str, list[float]] = {alert: [] for alert in THRESHOLDS}
    for _ in track(range(DAYS), f"clean days, {images_a_window} images a window"):
        stream = generator.integers(len(clean.confidences), size=a_day)
        for alert, scores in score_windows(clean, stream, ends, images_a_window, baseline).items():
            highest[alert].append(scores.max())
    return {alert: np.array(scores) for alert, scores in highest.items()}


def _compare_versions(one: Pool, two: Pool, images: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return the distances between what two versions predict for N images each, other ones."""
    draws = [generator.multinomial(images, pool.labels.mean(0), size=PAIRS) / images for pool in (one, two)]
    distances: NDArray[np.float64] = np.abs(draws[0] - draws[1]).sum(1) / 2
    return distances


def _measure_delays(
    clean: Pool, spoilt: Pool, baseline: Any, limits: dict[str, float], generator: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Return, by alert, the seconds from the first corrupted image until it fires; infinity where it does not."""
    pool, count = clean.join(spoilt), len(clean.confidences)
    after = np.arange(STEP_S, 2 * WINDOW_S + 1, STEP_S)
    found: dict[str, list[float]] = {alert: [] for alert in limits}
    for _ in range(ONSETS):  # one image a second
        before = generator.integers(count, size=WINDOW_S)
        stream = np.concatenate([before, count + generator.integers(count, size=2 * WINDOW_S)])
        scores = score_windows(pool, stream, WINDOW_S + after, WINDOW_S, baseline)
        for alert, limit in limits.items():
            fires = scores[alert] > limit
            found[alert].append(float(after[fires.argmax()]) if fires.any() else np.inf)
    return {alert: np.array(seconds) for alert, seconds in found.items()}


def _report_false_alarms(
    days: dict[int, dict[str, NDArray[np.float64]]], limits: dict[str, float], images: int
) -> list[str]:
    lines = [
        "# What the drift alerts are worth",
        "",
        f"Version {VERSION}, {datetime.now(UTC):%Y-%m-%d}. Clean traffic is drawn from the {images:,} validation "
        "images; the baseline is of the test images. Made by `python -m benchmarks.drift`, which repeats the "
        "arithmetic of the rules; tests/alerts/test_drift_scores.py compares that with Prometheus's own.",
        "",
        "## False alarms on clean traffic",
        "",
        f"{DAYS} days each, scored every {STEP_S} s over {WINDOW_S // 60} minutes. Fewer images than those of the "
        "first rows are not judged.",
        "",
        "| alert | threshold | images a window | highest score of a day: median | of all | days with an alarm |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for images_a_window, highest in days.items():
        for alert, limit in limits.items():
            scores = highest[alert]
            lines.append(
                f"| {alert} | {limit:g} | {images_a_window} | {np.median(scores):.3f} | {scores.max():.3f} "
                f"| {int((scores > limit).sum())} of {len(scores)} |"
            )
    return lines


def _report_versions(distances: NDArray[np.float64], limit: float, images: int) -> list[str]:
    return [
        "",
        f"CifarVersionsDisagree (threshold {limit:g}): between {VERSION} and {OTHER_VERSION}, each asked about "
        f"{images:,} other images, the fewest that are compared, the distance is "
        f"{np.median(distances):.3f} (median), {distances.max():.3f} at most in {len(distances):,} draws; above in "
        f"{int((distances > limit).sum())}.",
    ]


def _report_delays(delays: dict[tuple[str, int], dict[str, NDArray[np.float64]]]) -> list[str]:
    lines = [
        "",
        "## Seconds until a corruption is detected",
        "",
        f"From the first corrupted image, when from then on all are, after {WINDOW_S // 60} minutes of clean ones, "
        f"at one image a second: median (longest) of {ONSETS} onsets. What takes time is the window filling up, so "
        "more traffic does not make it shorter. Scrapes (5 s) and Alertmanager's `group_wait` come on top. "
        f"–: not within {2 * WINDOW_S // 60} minutes. Severities are those of training/corruptions.py.",
        "",
        "| corruption | severity | " + " | ".join(THRESHOLDS) + " |",
        "|---|---:|" + "---:|" * len(THRESHOLDS),
    ]
    for (name, severity), of_alerts in delays.items():
        cells = " | ".join(_cell(of_alerts[alert]) for alert in THRESHOLDS)
        lines.append(f"| {name} | {severity} | {cells} |")
    return lines


def _cell(seconds: NDArray[np.float64]) -> str:
    detected = np.isfinite(seconds)
    if detected.all():
        return f"{np.median(seconds):,.0f} ({seconds.max():,.0f})"
    return f"detected in {detected.sum()} of {len(detected)}" if detected.any() else "–"


if __name__ == "__main__":
    run_stage(main)
