"""One training run: its network, optimiser, schedule and randomness, epoch by epoch."""

import math
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from training.augment import Augmentation, augment, sample_augmentation
from training.calibrate import fit_temperature
from training.data import Dataset
from training.distributed import ProcessGroup
from training.errors import ParameterError, TrainingDiverged
from training.interrupt import StopSignals
from training.model import EVALUATION_BATCH, Classifier, ModelParams, build_classifier, resolve
from training.optimization import Schedule, TrainParams, build_optimizer, ema
from training.progress import EpochProgress
from training.tracking import git_commit
from training.weights import Checkpoint, plain_values


class Trainer:
    """One run, and what has come of it so far.

    Args:
        dataset: images and labels; the test part is not looked at.
        model_params: the network.
        params: how to train it.
        processes: those that share the work; this one alone when left out.

    Raises:
        ParameterError: more processes than images in a batch.

    Attributes:
        history: one row an epoch: the metrics that `run_epoch` returns.
        best_epoch: the one with the lowest validation loss; 1 is the first, 0: none yet.
        best_weights: its state dict (that of the averaged network, where weights are averaged).
        best_temperature: fitted on the validation images with these weights.
    """

    def __init__(
        self, dataset: Dataset, model_params: ModelParams, params: TrainParams, processes: ProcessGroup | None = None
    ) -> None:
        torch.manual_seed(params.seed)
        self.params = params
        self.git_commit = git_commit()  # now: the checkout may move while this runs
        self.processes = processes or ProcessGroup(params.torch_device())
        if self.processes.count > params.batch_size:
            raise ParameterError(
                f"train.batch_size is {params.batch_size}; expected at least the number of processes, "
                f"{self.processes.count}"
            )
        self.device = self.processes.device
        self.classifier: Classifier = build_classifier(model_params).to(self.device)
        self._network = self._trained_network()
        self._ema = ema(self.classifier.network, params.ema_decay) if params.ema_decay else None
        self._evaluated = self._evaluated_classifier(model_params)
        self.optimizer = build_optimizer(self.classifier.network, params)
        self.train_part = self._to_device(dataset.train_images, dataset.train_labels)
        self.validation_part = self._to_device(dataset.validation_images, dataset.validation_labels)
        self.schedule = Schedule(self.optimizer, params, math.ceil(len(self.train_part[1]) / params.batch_size))
        self.generator = torch.Generator().manual_seed(params.seed)
        self.augmentation = Augmentation(params.crop_padding, params.flip, params.cutout)
        self.settings = {f"model.{key}": value for key, value in plain_values(resolve(model_params)).items()}
        self.settings |= {f"train.{key}": value for key, value in asdict(params).items()}
        self.settings["data_digest"] = dataset.digest
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}
        self.best_temperature = 1.0

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping says that more would not help."""
        epochs = len(self.history)
        return epochs >= self.params.epochs or epochs - self.best_epoch >= self.params.early_stopping_patience

    def run_epoch(self, stop: StopSignals) -> dict[str, float] | None:
        """Train one epoch and validate it.

        Returns:
            The epoch's metrics, by name; None when a signal stopped it in the middle.

        Raises:
            TrainingDiverged: the loss is no number any more.
        """
        start = time.perf_counter()
        lr = self.optimizer.param_groups[0]["lr"]
        trained = self._train_epoch(stop)
        if trained is None:
            return None
        seconds = time.perf_counter() - start
        logits, labels = self._validate(), self.validation_part[1]
        loss = nn.functional.cross_entropy(logits, labels).item()
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the validation loss of epoch {len(self.history) + 1} is {loss}; train.lr "
                f"({self.params.lr:g}) is too high for this network"
            )
        metrics = {
            "train_loss": trained[0],
            "train_accuracy": trained[1],
            "validation_loss": loss,
            "validation_accuracy": (logits.argmax(1) == labels).double().mean().item(),
            "learning_rate": lr,
            "images_per_second": len(self.train_part[1]) / seconds,
        }
        self.schedule.after_epoch(loss)
        self.history.append(metrics)
        if self.best_epoch == 0 or loss < self.history[self.best_epoch - 1]["validation_loss"]:
            self.best_epoch = len(self.history)
            best = self._evaluated.network.state_dict()
            self.best_weights = {name: tensor.cpu().clone() for name, tensor in best.items()}
            self.best_temperature = fit_temperature(logits.cpu(), labels.cpu())
        return metrics

    def checkpoint(self, run_id: str) -> Checkpoint:
        """Return all that a later process needs to resume from here."""
        return Checkpoint(
            settings=self.settings,
            run_id=run_id,
            history=self.history,
            best_epoch=self.best_epoch,
            best_weights=self.best_weights,
            best_temperature=self.best_temperature,
            network=self.classifier.network.state_dict(),
            ema=self._ema.state_dict() if self._ema else None,
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            generator=self.generator.get_state(),
            torch_random=torch.get_rng_state(),
            cuda_random=torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint of the same settings."""
        self.history = checkpoint.history
        self.best_epoch = checkpoint.best_epoch
        self.best_weights = checkpoint.best_weights
        self.best_temperature = checkpoint.best_temperature
        self.classifier.network.load_state_dict(checkpoint.network)
        if self._ema and checkpoint.ema:
            self._ema.load_state_dict(checkpoint.ema)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.schedule.load_state_dict(checkpoint.schedule)
        self.generator.set_state(checkpoint.generator)
        torch.set_rng_state(checkpoint.torch_random)
        if self.device.type == "cuda" and checkpoint.cuda_random is not None:
            torch.cuda.set_rng_state(checkpoint.cuda_random, self.device)

    def _train_epoch(self, stop: StopSignals) -> tuple[float, float] | None:
        """Return the mean loss and the accuracy over the epoch's augmented images."""
        count = len(self.train_part[1])
        order = torch.randperm(count, generator=self.generator).to(self.device)
        sample = sample_augmentation(count, self.generator, self.device)
        self.processes.seed_dropout(self.params.seed, len(self.history))
        self.classifier.train()
        seen = 0
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)  # of the loss, of those that were right
        with EpochProgress(len(self.history) + 1, self.params.epochs, count, show=self.processes.first) as progress:
            for start in range(0, count, self.params.batch_size):
                if self.processes.any(stop.received is not None):
                    return None
                stop_at = min(start + self.params.batch_size, count)
                if stop_at - start < self.processes.count:
                    break  # a last batch in which some process would have no image to normalise by
                mine = self.processes.share(stop_at - start)
                first, last = start + mine.start, start + mine.stop
                totals += self._step(order[first:last], sample.part(first, last), stop_at - start)
                seen = stop_at
                progress.show(seen, totals)
        loss, right = (self.processes.sum(totals) / seen).tolist()
        return loss, right

    def _step(self, chosen: Tensor, sample: Any, batch_size: int) -> Tensor:
        """Learn from this process's share of a batch; return its summed loss and how many it had right, (2,)."""
        inputs = augment(self.train_part[0], chosen, sample, self.augmentation)
        labels = self.train_part[1][chosen]
        with torch.autocast(self.device.type, self.params.dtype(), enabled=self.params.dtype() != torch.float32):
            logits = self._network(self.classifier.normalise(inputs))
        loss = nn.functional.cross_entropy(
            logits.float(), labels, label_smoothing=self.params.label_smoothing, reduction="sum"
        )
        self.optimizer.zero_grad()
        # DistributedDataParallel divides the sum of the processes' gradients by their number.
        (loss * (self.processes.count / batch_size)).backward()
        self.optimizer.step()
        self.schedule.after_batch()
        if self._ema:
            self._ema.update_parameters(self.classifier.network)
        return torch.stack([loss.detach(), (logits.argmax(1) == labels).sum()])

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """Return the logits (N, 10) of the validation images."""
        self._evaluated.eval()
        self.processes.copy_buffers(self._evaluated.network)
        images = self.validation_part[0]
        mine = images[self.processes.share(len(images))]
        logits = [self._evaluated.logits(batch) for batch in mine.split(EVALUATION_BATCH)]
        return self.processes.gather(torch.cat(logits), len(images))

    def _trained_network(self) -> nn.Module:
        network = self.processes.distribute(self.classifier.network)
        return torch.compile(network) if self.params.compiled() else network  # type: ignore[return-value]

    def _evaluated_classifier(self, model_params: ModelParams) -> Classifier:
        if not isinstance(self._ema, AveragedModel):
            return self.classifier
        classifier = Classifier(self._ema.module, model_params.mean, model_params.std, model_params.flip_tta)
        return classifier.to(self.device)

    def _to_device(self, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(images).to(self.device), torch.from_numpy(labels).to(self.device)
