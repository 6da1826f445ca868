"""Training: the best epoch's weights, a record of how they came about, and a run in MLflow. The stage `train`.

One process: `python -m training.train`. Several: `torchrun --nproc-per-node 2 -m training.train`.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

from cifar.common.console import console, run_stage
from cifar.common.files import atomic_write, remove_leftovers, write_json
from cifar.common.training_record import RECORD_NAME
from training.data import DATA_FILE, load_dataset
from training.distributed import ProcessGroup
from training.interrupt import StopSignals
from training.model import ModelParams
from training.optimization import TrainParams
from training.params import check_sections, load_params
from training.progress import epoch_line
from training.tracking import TrackedRun
from training.trainer import Trainer
from training.weights import CHECKPOINT_NAME, WEIGHTS_FILE, load_checkpoint, save_weights

HISTORY_NAME = "history.csv"  # beside the weights: a row an epoch, for `dvc plots`


def train(trainer: Trainer, weights: Path, fresh: bool = False, data: Path = DATA_FILE) -> bool:
    """Run to the end, or until a signal; write weights, record, history and checkpoint beside each other.

    A run that was interrupted in whatever way, and began with the same settings, resumes from its last whole
    epoch: the weights at the end are those of a run that nothing interrupted, bit for bit on a CPU.

    Args:
        trainer: the run, not begun.
        weights: the file for the best epoch's state dict; `training.json`, `history.csv` and `checkpoint.pt` go beside
            it.
        fresh: drop the checkpoint of an interrupted run, if there is one, and start over.
        data: the file that the data set came from, for MLflow.

    Returns:
        Whether it ran to its end; otherwise the checkpoint of the last whole epoch is there to resume from.

    Raises:
        WeightsError: a checkpoint that is damaged, or of other settings.
        TrainingDiverged: the loss is no number any more.
    """
    checkpoint_file = weights.parent / CHECKPOINT_NAME
    if trainer.processes.first:
        for name in (weights.name, RECORD_NAME, HISTORY_NAME, CHECKPOINT_NAME):
            remove_leftovers(weights.parent / name)
        if fresh:
            checkpoint_file.unlink(missing_ok=True)
    run_id = _restore(trainer, checkpoint_file)
    with StopSignals() as stop:
        if not trainer.processes.first:
            list(_epochs(trainer, stop))
            return trainer.finished
        with TrackedRun(run_id) as run:
            if run_id is None:
                run.log_params(trainer.settings)
                run.log_dataset(trainer.settings["data_digest"], data)
                run.set_tags({"data_digest": trainer.settings["data_digest"], "git_commit": trainer.git_commit})
            for epoch, metrics in _epochs(trainer, stop):
                run.log_metrics(metrics, epoch)
                trainer.checkpoint(run.id).save(checkpoint_file)
                _write_results(trainer, run.id, weights)
                line = epoch_line(epoch, metrics, best=trainer.best_epoch == epoch)
                console.print(line, soft_wrap=True, highlight=False)
            if not trainer.finished:
                run.mark_stopped()
                return False
            _write_results(trainer, run.id, weights)  # again: the checkpoint may have been written, and they not
            for file in (weights, weights.parent / RECORD_NAME, weights.parent / HISTORY_NAME):
                run.log_file(file)
    checkpoint_file.unlink()
    return True


def main(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="train.KEY=VALUE…")] = None,
    data: Annotated[Path, typer.Option(help="the prepared data set")] = DATA_FILE,
    weights: Annotated[Path, typer.Option(help="the file to write")] = WEIGHTS_FILE,
    fresh: Annotated[bool, typer.Option("--fresh", help="drop an interrupted run instead of resuming it")] = False,
) -> None:
    """Train the network that params.yaml describes; an interrupted run of the same settings is resumed."""
    given = overrides or []
    check_sections(given, TrainParams, ModelParams)
    params, model_params = load_params(TrainParams, given), load_params(ModelParams, given)
    with ProcessGroup(params.torch_device()) as processes:
        trainer = Trainer(load_dataset(data), model_params, params, processes)
        finished = train(trainer, weights, fresh, data)
        if processes.first:
            _tell_end(trainer, weights, finished)
    if not finished:
        sys.exit(130)


def _restore(trainer: Trainer, checkpoint_file: Path) -> str | None:
    """Resume from the checkpoint where there is one, and return its MLflow run."""
    checkpoint = load_checkpoint(checkpoint_file, trainer.settings) if trainer.processes.first else None
    checkpoint = trainer.processes.broadcast(checkpoint)
    if checkpoint is None:
        return None
    trainer.restore(checkpoint)
    if trainer.processes.first:
        console.print(
            f"{checkpoint_file}: resuming after epoch {len(trainer.history)} of an interrupted run "
            "(--fresh starts over)",
            soft_wrap=True,
            highlight=False,
        )
    return checkpoint.run_id


def _epochs(trainer: Trainer, stop: StopSignals) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the number and the metrics of each epoch that was trained whole."""
    while not trainer.finished:
        metrics = trainer.run_epoch(stop)
        if metrics is None:
            return
        yield len(trainer.history), metrics


def _write_results(trainer: Trainer, run_id: str, weights: Path) -> None:
    """Write weights, record and history; the three are always of the same epoch."""
    if trainer.best_epoch == len(trainer.history) or trainer.finished:
        save_weights(trainer.best_weights, weights)
        _write_record(trainer, run_id, weights.parent / RECORD_NAME)
    with atomic_write(weights.parent / HISTORY_NAME) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *trainer.history[0]])
        writer.writeheader()
        writer.writerows({"epoch": epoch} | row for epoch, row in enumerate(trainer.history, 1))


def _write_record(trainer: Trainer, run_id: str, path: Path) -> None:
    best = trainer.history[trainer.best_epoch - 1]
    sections = {
        name: {key.removeprefix(f"{name}."): value for key, value in trainer.settings.items() if key.startswith(name)}
        for name in ("model", "train")
    }
    record = sections | {
        "data_digest": trainer.settings["data_digest"],
        "git_commit": trainer.git_commit,
        "mlflow_run": run_id,
        "torch": torch.__version__,
        "best_epoch": trainer.best_epoch,
        "validation_loss": best["validation_loss"],
        "validation_accuracy": best["validation_accuracy"],
        "temperature": trainer.best_temperature,
        "history": trainer.history,
    }
    write_json(record, path)


def _tell_end(trainer: Trainer, weights: Path, finished: bool) -> None:
    done = len(trainer.history)
    if finished:
        accuracy = trainer.history[trainer.best_epoch - 1]["validation_accuracy"]
        console.print(f"{weights}: epoch {trainer.best_epoch} of {done}, validation accuracy {accuracy:.2%}")
        return
    kept = f"the best weights so far (epoch {trainer.best_epoch}) are in {weights}" if done else "nothing is kept"
    text = f"stopped after epoch {done}; {kept}. The same command resumes from there."
    console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_stage(main)
