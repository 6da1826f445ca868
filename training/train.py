"""Training: the best epoch's weights, a record of how they came about, and a run in MLflow. The stage `train`."""

import math
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import typer
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from training.augment import augment
from training.checkpoint import CHECKPOINT_NAME, Checkpoint, load_checkpoint
from training.command import console, run_stage
from training.data import DATA_FILE, Dataset, load_dataset
from training.errors import ParameterError, TrainingDiverged
from training.interrupt import StopSignals
from training.json_file import write_json
from training.model import EVALUATION_BATCH, Classifier, ModelParams, build_classifier, resolve
from training.params import check_sections, load_params
from training.progress import EpochProgress, epoch_line
from training.provenance import git_commit
from training.tracking import TrackedRun
from training.weights import RECORD_NAME, WEIGHTS_FILE, plain_values, save_weights


@dataclass(frozen=True)
class TrainParams:
    """The section `train` of params.yaml, which explains each."""

    SECTION: ClassVar[str] = "train"

    epochs: int
    batch_size: int
    optimizer: Literal["adam", "sgd"]
    learning_rate: float
    momentum: float
    weight_decay: float
    crop_padding: int
    flip: bool
    plateau_factor: float
    plateau_patience: int
    early_stopping_patience: int
    seed: int
    device: Literal["auto", "cpu", "cuda"]

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "early_stopping_patience"):
            _require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        for key in ("weight_decay", "crop_padding", "plateau_patience", "seed"):
            _require(getattr(self, key) >= 0, key, getattr(self, key), "at least 0")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")
        _require(0 < self.plateau_factor < 1, "plateau_factor", self.plateau_factor, "between 0 and 1")
        _require(self.crop_padding <= 31, "crop_padding", self.crop_padding, "below the picture's 32 pixels")
        if self.device == "cuda":
            _require(torch.cuda.is_available(), "device", self.device, "cpu or auto: PyTorch sees no GPU here")


class Training:
    """One run: its network, optimiser, scheduler and chance, and what has come of them so far.

    Args:
        dataset: pictures and labels; the test part is not looked at.
        model_params: the network.
        params: how to train it.
    """

    def __init__(self, dataset: Dataset, model_params: ModelParams, params: TrainParams) -> None:
        torch.manual_seed(params.seed)
        self.params = params
        self.git_commit = git_commit()  # now: the checkout may move while this runs
        self.device = torch.device(_device(params.device))
        self.classifier: Classifier = build_classifier(model_params).to(self.device)
        self.optimizer = _optimizer(self.classifier, params)
        self.scheduler = ReduceLROnPlateau(
            self.optimizer, factor=params.plateau_factor, patience=params.plateau_patience
        )
        self.generator = torch.Generator().manual_seed(params.seed)
        self.train_part = self._to_device(dataset.train_images, dataset.train_labels)
        self.validation_part = self._to_device(dataset.validation_images, dataset.validation_labels)
        self.settings = {f"model.{key}": value for key, value in plain_values(resolve(model_params)).items()}
        self.settings |= {f"train.{key}": value for key, value in asdict(params).items()}
        self.settings["data_digest"] = dataset.digest
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping says that more would not help."""
        epochs = len(self.history)
        return epochs >= self.params.epochs or epochs - self.best_epoch >= self.params.early_stopping_patience

    def run_epoch(self, stop: StopSignals) -> dict[str, float] | None:
        """Train one epoch and validate it.

        Returns:
            The epoch's figures, by name; None when a signal stopped it in the middle.

        Raises:
            TrainingDiverged: the loss is no number any more.
        """
        start = time.perf_counter()
        trained = self._train_epoch(stop)
        if trained is None:
            return None
        seconds = time.perf_counter() - start
        loss, accuracy = measure(self.classifier, *self.validation_part)
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the validation loss of epoch {len(self.history) + 1} is {loss}; train.learning_rate "
                f"({self.params.learning_rate:g}) is too high for this network"
            )
        figures = {
            "train_loss": trained[0],
            "train_accuracy": trained[1],
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_second": len(self.train_part[1]) / seconds,
        }
        self.scheduler.step(loss)
        self.history.append(figures)
        if self.best_epoch == 0 or loss < self.history[self.best_epoch - 1]["validation_loss"]:
            self.best_epoch = len(self.history)
            self.best_weights = {name: tensor.cpu().clone() for name, tensor in self._network_state().items()}
        return figures

    def checkpoint(self, run_id: str) -> Checkpoint:
        """Return all that a later process needs to go on from here."""
        return Checkpoint(
            settings=self.settings,
            run_id=run_id,
            history=self.history,
            best_epoch=self.best_epoch,
            best_weights=self.best_weights,
            network=self._network_state(),
            optimizer=self.optimizer.state_dict(),
            scheduler=self.scheduler.state_dict(),
            generator=self.generator.get_state(),
            torch_random=torch.get_rng_state(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same settings."""
        self.history = checkpoint.history
        self.best_epoch = checkpoint.best_epoch
        self.best_weights = checkpoint.best_weights
        self.classifier.network.load_state_dict(checkpoint.network)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.scheduler.load_state_dict(checkpoint.scheduler)
        self.generator.set_state(checkpoint.generator)
        torch.set_rng_state(checkpoint.torch_random)

    def _train_epoch(self, stop: StopSignals) -> tuple[float, float] | None:
        """Return the mean loss and the accuracy over the epoch's augmented pictures."""
        images, labels = self.train_part
        self.classifier.train()
        total_loss, correct, seen = 0.0, 0, 0
        with EpochProgress(len(self.history) + 1, self.params.epochs, len(labels)) as progress:
            for batch in torch.randperm(len(labels), generator=self.generator).split(self.params.batch_size):
                if stop.received:
                    return None
                chosen = batch.to(self.device)
                inputs = augment(images[chosen], self.params.crop_padding, self.params.flip, self.generator)
                loss, hits = self._step(inputs, labels[chosen])
                seen += len(batch)
                total_loss += loss * len(batch)
                correct += hits
                progress.show(seen, total_loss / seen, correct / seen)
        return total_loss / seen, correct / seen

    def _step(self, inputs: Tensor, labels: Tensor) -> tuple[float, int]:
        """Learn from one batch; return its mean loss and how many it had right."""
        logits = self.classifier.logits(inputs)
        loss = nn.functional.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item(), int((logits.argmax(1) == labels).sum().item())

    def _network_state(self) -> dict[str, Tensor]:
        return self.classifier.network.state_dict()

    def _to_device(self, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(images).to(self.device), torch.from_numpy(labels).to(self.device)


@torch.inference_mode()
def measure(classifier: Classifier, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean cross-entropy loss (nats) and the accuracy (0-1) over pictures (N, 32, 32, 3) uint8."""
    classifier.eval()
    logits = torch.cat([classifier.logits(batch) for batch in images.split(EVALUATION_BATCH)])
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return nn.functional.cross_entropy(logits, labels).item(), accuracy


def train(training: Training, weights: Path, resume: bool = False) -> bool:
    """Run `training` to its end, or until a signal; write weights, record and checkpoint beside each other.

    Args:
        training: the run, not begun.
        weights: the file for the best epoch's state dict; `training.json` and `checkpoint.pt` go beside it.
        resume: go on from the checkpoint.

    Returns:
        Whether it ran to its end; otherwise the checkpoint of the last whole epoch is there to resume from.

    Raises:
        WeightsError: nothing to resume, or a checkpoint of other settings.
    """
    checkpoint_file = weights.parent / CHECKPOINT_NAME
    run_id = None
    if resume:
        checkpoint = load_checkpoint(checkpoint_file, training.settings)
        training.restore(checkpoint)
        run_id = checkpoint.run_id
        console.print(f"resumed after epoch {len(training.history)}, best so far: epoch {training.best_epoch}")
    with TrackedRun(run_id) as run, StopSignals() as stop:
        if not resume:
            run.log_params(training.settings)
            run.set_tags({"data_digest": training.settings["data_digest"], "git_commit": training.git_commit})
        for epoch, figures in _epochs(training, stop):
            run.log_metrics(figures, epoch)
            training.checkpoint(run.id).save(checkpoint_file)
            if training.best_epoch == epoch:
                save_weights(training.best_weights, weights)
                # Beside them at once: weights of a run that was stopped must not stand beside an older run's record.
                _write_record(training, run.id, weights.parent / RECORD_NAME)
            console.print(
                epoch_line(epoch, figures, best=training.best_epoch == epoch), soft_wrap=True, highlight=False
            )
        if stop.received:
            run.mark_stopped()
            return False
        save_weights(training.best_weights, weights)
        _write_record(training, run.id, weights.parent / RECORD_NAME)
        run.log_file(weights)
        run.log_file(weights.parent / RECORD_NAME)
    checkpoint_file.unlink()
    return True


def main(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="train.KEY=VALUE…")] = None,
    data: Annotated[Path, typer.Option(help="the prepared data set")] = DATA_FILE,
    weights: Annotated[Path, typer.Option(help="the file to write")] = WEIGHTS_FILE,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the interrupted run")] = False,
) -> None:
    """Train the network that params.yaml describes."""
    given = overrides or []
    check_sections(given, TrainParams, ModelParams)
    params, model_params = load_params(TrainParams, given), load_params(ModelParams, given)
    training = Training(load_dataset(data), model_params, params)
    if train(training, weights, resume):
        best = training.history[training.best_epoch - 1]
        console.print(
            f"{weights}: epoch {training.best_epoch} of {len(training.history)}, "
            f"validation accuracy {best['validation_accuracy']:.2%}"
        )
        return
    done = len(training.history)
    kept = (
        f"the best weights so far (epoch {training.best_epoch}) are in {weights}" if done else "no epoch was finished"
    )
    console.print(f"stopped after epoch {done}; {kept}.", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if done:
        command = shlex.join(["python", "-m", "training.train", *_resume_arguments(given, data, weights)])
        console.print(f"go on: {command}", soft_wrap=True, markup=False, highlight=False)
    sys.exit(130)


def _epochs(training: Training, stop: StopSignals) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the number and the figures of each epoch that was trained whole."""
    while not training.finished and not stop.received:
        figures = training.run_epoch(stop)
        if figures is not None:
            yield len(training.history), figures


def _write_record(training: Training, run_id: str, path: Path) -> None:
    best = training.history[training.best_epoch - 1]
    sections = {
        name: {key.removeprefix(f"{name}."): value for key, value in training.settings.items() if key.startswith(name)}
        for name in ("model", "train")
    }
    record = sections | {
        "data_digest": training.settings["data_digest"],
        "git_commit": training.git_commit,
        "mlflow_run": run_id,
        "torch": torch.__version__,
        "best_epoch": training.best_epoch,
        "validation_loss": best["validation_loss"],
        "validation_accuracy": best["validation_accuracy"],
        "history": training.history,
    }
    write_json(record, path)


def _resume_arguments(overrides: list[str], data: Path, weights: Path) -> list[str]:
    files = ["--data", str(data)] if data != DATA_FILE else []
    files += ["--weights", str(weights)] if weights != WEIGHTS_FILE else []
    return ["--resume", *files, *overrides]


def _optimizer(classifier: Classifier, params: TrainParams) -> torch.optim.Optimizer:
    weights = classifier.parameters()
    if params.optimizer == "sgd":
        return torch.optim.SGD(
            weights, lr=params.learning_rate, momentum=params.momentum, weight_decay=params.weight_decay
        )
    return torch.optim.Adam(weights, lr=params.learning_rate, weight_decay=params.weight_decay)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise ParameterError(f"train.{key} is {value}; expected {expected}")


if __name__ == "__main__":
    run_stage(main)
