"""The `cifar` command and the Python client behind it."""

from cifar.client.inference import Answer, Guess, InferenceClient, Prediction
from cifar.client.management import ManagementClient, ModelVersion, Worker
from cifar.common.errors import (
    CifarError,
    ConfigUnusable,
    InputUnreadable,
    ModelNotFound,
    RequestRejected,
    ServerError,
    ServerUnreachable,
    TokenRejected,
    UnexpectedAnswer,
    VersionExists,
    VersionIsDefault,
)

__all__ = [
    "Answer",
    "CifarError",
    "ConfigUnusable",
    "Guess",
    "InferenceClient",
    "InputUnreadable",
    "ManagementClient",
    "ModelNotFound",
    "ModelVersion",
    "Prediction",
    "RequestRejected",
    "ServerError",
    "ServerUnreachable",
    "TokenRejected",
    "UnexpectedAnswer",
    "VersionExists",
    "VersionIsDefault",
    "Worker",
]
