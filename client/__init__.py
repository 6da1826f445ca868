"""The `cifar` command and the Python client behind it."""

from client.errors import (
    CifarError,
    InputUnreadable,
    ModelNotFound,
    RequestRefused,
    ServerError,
    ServerUnreachable,
    UnexpectedAnswer,
)
from client.inference import Answer, Guess, InferenceClient, Prediction

__all__ = [
    "Answer",
    "CifarError",
    "Guess",
    "InferenceClient",
    "InputUnreadable",
    "ModelNotFound",
    "Prediction",
    "RequestRefused",
    "ServerError",
    "ServerUnreachable",
    "UnexpectedAnswer",
]
