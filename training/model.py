"""The networks, and the classifier that wraps one: pixels in, probabilities out."""

import inspect
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cifar.common.project import IMAGE_SIZE
from training.errors import ParameterError, WeightsError

CLASS_COUNT = 10
EVALUATION_BATCH = 128  # images: fits the caches (500: a quarter slower on two cores); no metric depends on it

_ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU}


@dataclass(frozen=True)
class ModelParams:
    """The section `model` of params.yaml. None stands for the named network's own value."""

    SECTION: ClassVar[str] = "model"

    name: Literal["ImprovedCNN", "SimpleCNN"] = "ImprovedCNN"
    filters: tuple[int, ...] | None = None
    kernel_size: int | None = None
    pool_size: int | None = None
    hidden_width: int | None = None
    dropout: float | None = None
    activation: Literal["relu", "leaky_relu", "elu", "gelu", "silu"] | None = None
    batch_norm: bool | None = None
    pool_first: bool | None = None
    flip_tta: bool = False
    # Of CIFAR-10's training pixels, scaled to 0-1.
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ParameterError(f"model.mean and model.std need 3 numbers (R, G, B), got {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise ParameterError(f"model.std is {self.std}; every number must be above 0")


def build_network(params: ModelParams) -> "SimpleCNN | ImprovedCNN":
    """Build the network that `params` names, with random weights.

    Raises:
        ParameterError: a value out of range, or a combination that leaves nothing of 32×32 pixels.
    """
    network = _network_class(params)
    return network(**{key: getattr(resolve(params), key) for key in inspect.signature(network).parameters})


def resolve(params: ModelParams) -> ModelParams:
    """Return `params` with the named network's own values in place of None."""
    own = {key: parameter.default for key, parameter in inspect.signature(_network_class(params)).parameters.items()}
    return replace(params, **{key: value for key, value in own.items() if getattr(params, key) is None})


class SimpleCNN(nn.Module):
    """Two convolutions and two fully connected layers: the baseline.

    Args:
        filters: output channels of conv1 and conv2.
        kernel_size: odd, in pixels; padding keeps the size.
        pool_size: side and stride of the max pool behind each convolution, in pixels.
        hidden_width: units between fc1 and fc2.
        dropout: probability of dropping a hidden unit before fc2.
        activation: relu, leaky_relu, elu, gelu or silu.
        batch_norm: normalise behind each convolution.
        pool_first: convolution, pool, normalisation, activation: a quarter of the work of the usual order, in which the
            pool comes last. Without batch normalisation, and an activation that only rises, both give the same.

    Raises:
        ParameterError: a value out of range, or a combination that leaves nothing of 32×32 pixels.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (32, 64),
        kernel_size: int = 3,
        pool_size: int = 2,
        hidden_width: int = 512,
        dropout: float = 0.0,
        activation: str = "relu",
        batch_norm: bool = False,
        pool_first: bool = True,
    ) -> None:
        super().__init__()
        sizes = _feature_sizes("SimpleCNN", 2, filters, kernel_size, pool_size)
        _check_head(hidden_width, dropout, activation)
        self.conv1 = nn.Conv2d(3, filters[0], kernel_size, padding=kernel_size // 2)
        self.bn1 = _norm(filters[0], batch_norm)
        self.conv2 = nn.Conv2d(filters[0], filters[1], kernel_size, padding=kernel_size // 2)
        self.bn2 = _norm(filters[1], batch_norm)
        self.pool = nn.MaxPool2d(pool_size)
        self.pool_first = pool_first
        self.activation = _ACTIVATIONS[activation]()
        self.fc1 = nn.Linear(filters[1] * sizes[-1] ** 2, hidden_width)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden_width, CLASS_COUNT)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) normalised pixels to (N, 10) logits; shapes below are those of the default parameters."""
        if self.pool_first:
            x = self.activation(self.bn1(self.pool(self.conv1(x))))  # (N, 32, 16, 16)
            x = self.activation(self.bn2(self.pool(self.conv2(x))))  # (N, 64, 8, 8)
        else:
            x = self.pool(self.activation(self.bn1(self.conv1(x))))
            x = self.pool(self.activation(self.bn2(self.conv2(x))))
        x = self.activation(self.fc1(torch.flatten(x, 1)))  # (N, 512)
        logits: Tensor = self.fc2(self.dropout(x))
        return logits


class ImprovedCNN(nn.Module):
    """Three convolutions with batch normalisation, two fully connected layers with dropout between them.

    Parameters and errors are those of SimpleCNN. Without batch normalisation its state dict has the keys of conv1,
    conv2, conv3, fc1 and fc2 only, so that a `best_cnn_model.pth` trained by other code loads.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (32, 64, 64),
        kernel_size: int = 3,
        pool_size: int = 2,
        hidden_width: int = 512,
        dropout: float = 0.5,
        activation: str = "relu",
        batch_norm: bool = True,
        pool_first: bool = True,
    ) -> None:
        super().__init__()
        sizes = _feature_sizes("ImprovedCNN", 3, filters, kernel_size, pool_size)
        _check_head(hidden_width, dropout, activation)
        self.conv1 = nn.Conv2d(3, filters[0], kernel_size, padding=kernel_size // 2)
        self.bn1 = _norm(filters[0], batch_norm)
        self.conv2 = nn.Conv2d(filters[0], filters[1], kernel_size, padding=kernel_size // 2)
        self.bn2 = _norm(filters[1], batch_norm)
        self.conv3 = nn.Conv2d(filters[1], filters[2], kernel_size, padding=kernel_size // 2)
        self.bn3 = _norm(filters[2], batch_norm)
        self.pool = nn.MaxPool2d(pool_size)
        self.pool_first = pool_first
        self.activation = _ACTIVATIONS[activation]()
        self.fc1 = nn.Linear(filters[2] * sizes[-1] ** 2, hidden_width)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden_width, CLASS_COUNT)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) normalised pixels to (N, 10) logits; shapes below are those of the default parameters."""
        if self.pool_first:
            x = self.activation(self.bn1(self.pool(self.conv1(x))))  # (N, 32, 16, 16)
            x = self.activation(self.bn2(self.pool(self.conv2(x))))  # (N, 64, 8, 8)
            x = self.activation(self.bn3(self.pool(self.conv3(x))))  # (N, 64, 4, 4)
        else:
            x = self.pool(self.activation(self.bn1(self.conv1(x))))
            x = self.pool(self.activation(self.bn2(self.conv2(x))))
            x = self.pool(self.activation(self.bn3(self.conv3(x))))
        x = self.activation(self.fc1(torch.flatten(x, 1)))  # (N, 512)
        logits: Tensor = self.fc2(self.dropout(x))
        return logits


class Classifier(nn.Module):
    """A network with its preprocessing and its softmax: the TorchScript contract, eager.

    Training, evaluation and serving all see pixels through this one class, so they cannot disagree on scaling.

    Args:
        network: (N, 3, 32, 32) normalised pixels to (N, 10) logits.
        mean: of each channel's pixels, scaled to 0-1.
        std: their standard deviation.
        flip_tta: average the logits of each image and of its flipped image: twice the work, and more accurate for a
            network that was trained on both (Krizhevsky, Sutskever and Hinton 2012, section 4.1).

    Attributes:
        temperature: what logits are divided by before the softmax, so that confidences are as often right as they say;
            1 leaves them alone. Fitted on the validation images (training/calibrate.py).
    """

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], flip_tta: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.flip_tta = flip_tta
        self.temperature = 1.0
        # Not persistent: the weights file holds the network's weights and nothing else.
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 32, 32, 3) uint8, or float32 in 0-255, to (N, 10) float32 probabilities; rows sum to 1."""
        return torch.softmax(self.logits(images) / self.temperature, dim=1)

    def logits(self, images: Tensor) -> Tensor:
        """As `forward`, before temperature and softmax."""
        if self.flip_tta:
            both: Tensor = self.network(self.normalise(torch.cat([images, images.flip(2)])))
            return both.view(2, -1, both.shape[1]).mean(0)
        logits: Tensor = self.network(self.normalise(images))
        return logits

    def normalise(self, images: Tensor) -> Tensor:
        """(N, 32, 32, 3) pixels to (N, 3, 32, 32) float32 with mean 0 and deviation 1 over the training set."""
        pixels = (images.to(torch.float32) - self.mean) / self.std
        return pixels.permute(0, 3, 1, 2)  # a view, no copy: N, H, W, C in memory is what PyTorch calls channels_last


def build_classifier(params: ModelParams) -> Classifier:
    """Build the network that `params` names inside its classifier; raises ParameterError as `build_network` does."""
    network = build_network(params).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Classifier(network, params.mean, params.std, params.flip_tta)


@torch.inference_mode()
def predict_probabilities(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run images (N, 32, 32, 3) through the classifier, to the probabilities (N, 10) that it serves."""
    batches = torch.from_numpy(images).split(EVALUATION_BATCH)
    probabilities: NDArray[np.float32] = torch.cat([classifier(batch) for batch in batches]).numpy()
    return probabilities


@torch.inference_mode()
def predict_logits(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """As `predict_probabilities`, before temperature and softmax.

    Raises:
        WeightsError: a logit is NaN or infinite.
    """
    batches = torch.from_numpy(images).split(EVALUATION_BATCH)
    logits: NDArray[np.float32] = torch.cat([classifier.logits(batch) for batch in batches]).numpy()
    if not np.isfinite(logits).all():
        raise WeightsError("the network answers with numbers that are not finite; its weights are damaged, train again")
    return logits


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Return the probabilities (N, 10) that a classifier of this temperature makes of logits (N, 10), bit for bit."""
    probabilities: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits) / temperature, dim=1).numpy()
    return probabilities


def _network_class(params: ModelParams) -> "type[SimpleCNN | ImprovedCNN]":
    return SimpleCNN if params.name == "SimpleCNN" else ImprovedCNN


def _feature_sizes(name: str, layers: int, filters: tuple[int, ...], kernel_size: int, pool_size: int) -> list[int]:
    """Return the side in pixels before and after each pool, such as [32, 16, 8, 4]."""
    if len(filters) != layers or min(filters) < 1:
        raise ParameterError(f"model.filters is {list(filters)}; {name} needs {layers} numbers of at least 1")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ParameterError(f"model.kernel_size is {kernel_size}; it must be odd, for the padding to keep the size")
    if pool_size < 1:
        raise ParameterError(f"model.pool_size is {pool_size}; it must be at least 1 (1: no pooling)")
    sizes = [IMAGE_SIZE]
    for layer in range(1, layers + 1):
        if kernel_size // 2 > sizes[-1]:
            path = " → ".join(map(str, sizes))
            raise ParameterError(
                f"model.kernel_size is {kernel_size}, more than twice the {sizes[-1]} pixels that conv{layer} sees "
                f"({path}): it would read mostly padding"
            )
        sizes.append(sizes[-1] // pool_size)
        if sizes[-1] == 0:
            path = " → ".join(map(str, sizes))
            raise ParameterError(
                f"model.pool_size is {pool_size}: pooling {layer} times leaves nothing of 32×32 pixels ({path})"
            )
    return sizes


def _check_head(hidden_width: int, dropout: float, activation: str) -> None:
    if hidden_width < 1:
        raise ParameterError(f"model.hidden_width is {hidden_width}; it must be at least 1")
    if not 0 <= dropout < 1:
        raise ParameterError(f"model.dropout is {dropout}; it must be at least 0 and below 1")
    if activation not in _ACTIVATIONS:
        raise ParameterError(f"model.activation is {activation!r}; known: {', '.join(_ACTIVATIONS)}")


def _norm(channels: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
