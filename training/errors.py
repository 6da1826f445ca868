"""What the pipeline rejects, and why.

TrainingError            a CifarError (cifar/common/errors.py)
├── ParameterError       params.yaml or an override: unknown key, wrong type, out of range
├── DataError            images or the prepared data file: missing, unreadable, not what was expected
├── WeightsError         weights or a checkpoint: unreadable, or of another network
├── TrainingDiverged     the loss is no number any more
├── StudyRejected         a search's study is in use, or holds trials of other settings
├── GateFailed           the weights are not measured, or not good enough to export
├── ExportRejected        the TorchScript file would not answer as the network does
└── RegistrationRejected  model, weights, record or metrics are missing, or not of one training
"""

from cifar.common.errors import CifarError


class TrainingError(CifarError):
    """Anything a user can fix; the message says what came, what was expected and how to fix it."""


class ParameterError(TrainingError):
    """A parameter is unknown, of a wrong type or out of range; the message names its key."""


class DataError(TrainingError):
    """Images or the prepared data file are missing, unreadable or not what was expected; the message names the file."""


class WeightsError(TrainingError):
    """A weights file or a checkpoint cannot be read, or belongs to another network."""


class TrainingDiverged(TrainingError):
    """The loss became NaN or infinite; the weights of the epochs before are kept."""


class StudyRejected(TrainingError):
    """The study's file cannot be used, is in use, or holds trials that cannot be compared with new ones."""


class GateFailed(TrainingError):
    """The weights are not measured, or worse than the thresholds allow; nothing was exported."""


class ExportRejected(TrainingError):
    """The exported network would answer differently from the trained one; no file was written."""


class RegistrationRejected(TrainingError):
    """The exported model, its weights, their record or their metrics are missing, or not of one training."""
