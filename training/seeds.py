"""The same training from several seeds: how much of an accuracy is randomness.

`python -m training.seeds 0 1 2` trains and evaluates each in a folder of its own, resumes where it was interrupted, and
takes the seed that is best on the validation images. The test images choose nothing.
"""

import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cifar.common.console import console, run_stage
from cifar.common.files import read_json, write_json
from cifar.common.training_record import EVALUATION_NAME, RECORD_NAME, read_record
from training.data import DATA_FILE
from training.errors import ParameterError, WeightsError
from training.evaluate import PLOTS_NAME, read_evaluation
from training.train import HISTORY_NAME
from training.weights import WEIGHTS_FILE

SEEDS_NAME = "seeds.json"  # beside the weights: a row a seed


def summarise(folders: list[Path]) -> list[dict[str, Any]]:
    """Return a row for each folder of a seed, from the record and the metrics of its training.

    Raises:
        WeightsError: a folder lacks its record or its metrics, or the runs differ in more than the seed.
    """
    rows, others = [], []
    for folder in folders:
        weights = folder / WEIGHTS_FILE.name
        record, metrics = read_record(weights), read_evaluation(weights)
        if record is None or metrics is None:
            raise WeightsError(
                f"{folder} lacks {RECORD_NAME} or {EVALUATION_NAME} of its weights; train and evaluate it"
            )
        settings = record["train"] | {"model": record["model"], "data_digest": record["data_digest"]}
        rows.append(
            {
                "seed": settings.pop("seed"),
                "validation_accuracy": record["validation_accuracy"],
                "best_epoch": record["best_epoch"],
                "mlflow_run": record["mlflow_run"],
                "git_commit": record["git_commit"],
            }
            | {key: metrics[key] for key in ("accuracy", "corrupted_accuracy", "calibration_error", "weights_digest")}
        )
        others.append(settings)
        if others[-1] != others[0]:
            changed = [key for key in others[0] if others[0][key] != others[-1].get(key)]
            raise WeightsError(f"{folder} was not trained as {folders[0]}: {', '.join(changed)} differ")
    return rows


def read_seeds(weights: Path) -> list[dict[str, Any]]:
    """Return the rows beside a weights file; none where it is the only run."""
    return (read_json(weights.parent / SEEDS_NAME) or {"seeds": []})["seeds"]  # type: ignore[no-any-return]


def spread(values: list[float]) -> tuple[float, float]:
    """Return mean and standard deviation (that of a sample; 0 for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def main(
    seeds: Annotated[list[int], typer.Argument(help="such as 0 1 2")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="train.KEY=VALUE or model.KEY=VALUE")] = None,
    data: Annotated[Path, typer.Option(help="the prepared data set")] = DATA_FILE,
    weights: Annotated[Path, typer.Option(help="where the best seed's weights go")] = WEIGHTS_FILE,
) -> None:
    """Train and evaluate with each seed; keep the weights that are best on the validation images."""
    overrides = set_ or []
    if len(set(seeds)) < len(seeds) or any(item.startswith("train.seed=") for item in overrides):
        raise ParameterError(f"each seed counts once, and only as an argument; got {seeds} and {overrides}")
    folders = [weights.parent / "seeds" / str(seed) for seed in seeds]
    for seed, folder in zip(seeds, folders, strict=True):
        own = folder / WEIGHTS_FILE.name
        if read_evaluation(own) if own.exists() else None:
            console.print(f"{folder}: done before")
            continue
        files = ["--data", str(data), "--weights", str(own)]
        _run(["training.train", *files, *overrides, f"train.seed={seed}"])
        _run(["training.evaluate", *files])
    rows = summarise(folders)
    best = max(range(len(rows)), key=lambda index: rows[index]["validation_accuracy"])
    for name in (WEIGHTS_FILE.name, RECORD_NAME, EVALUATION_NAME, HISTORY_NAME, PLOTS_NAME):
        _copy(folders[best] / name, weights if name == WEIGHTS_FILE.name else weights.parent / name)
    write_json({"seeds": rows}, weights.parent / SEEDS_NAME)
    console.print(_table(rows, best))


def _run(module: list[str]) -> None:
    """Run a stage in a process of its own, as `python -m training.seeds` found it; its message is the user's."""
    code = subprocess.run([sys.executable, "-m", *module], check=False).returncode
    if code:
        sys.exit(code)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def _table(rows: list[dict[str, Any]], best: int) -> Table:
    table = Table()
    for column in ("seed", "validation", "test", "corrupted test"):
        table.add_column(column, justify="right")
    for index, row in enumerate(rows):
        shares = (row["validation_accuracy"], row["accuracy"], row["corrupted_accuracy"])
        table.add_row(f"{row['seed']}{' (kept)' if index == best else ''}", *(f"{share:.2%}" for share in shares))
    table.add_section()
    for name, which in (("mean", 0), ("standard deviation", 1)):
        keys = ("validation_accuracy", "accuracy", "corrupted_accuracy")
        table.add_row(name, *(f"{spread([row[key] for row in rows])[which]:.2%}" for key in keys))
    return table


if __name__ == "__main__":
    run_stage(main)
