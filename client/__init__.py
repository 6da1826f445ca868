"""The `cifar` command and the Python client behind it."""

from client.errors import (
    CifarError,
    ConfigUnusable,
    InputUnreadable,
    ModelNotFound,
    RequestRefused,
    ServerError,
    ServerUnreachable,
    TokenRefused,
    UnexpectedAnswer,
    VersionExists,
    VersionIsDefault,
)
from client.inference import Answer, Guess, InferenceClient, Prediction
from client.management import ManagementClient, ModelVersion, Worker

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
    "RequestRefused",
    "ServerError",
    "ServerUnreachable",
    "TokenRefused",
    "UnexpectedAnswer",
    "VersionExists",
    "VersionIsDefault",
    "Worker",
]
