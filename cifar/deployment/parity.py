"""Sends the certificate's pictures through the running server, and compares its answers with the recorded ones."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar.archives.reference_outputs import Certificate, find_difference
from cifar.client.inference import Answer, InferenceClient
from cifar.common.errors import CifarError, DeploymentFailed


def check_parity(inference: InferenceClient, version: str, certificate: Certificate) -> int:
    """Ask a version about all pictures, as raw bytes, and about the first as numbers and as PNG too.

    Returns:
        How many pictures were compared.

    Raises:
        DeploymentFailed: an answer differs, or there is none.
    """
    first = certificate.images[:1]
    for body, images in (
        (certificate.images, certificate.images),
        (first.astype(np.float32), first),
        (_as_png(first[0]), first),
    ):
        try:
            answer = inference.predict(body, top_k=len(certificate.class_names), version=version)
        except CifarError as error:
            raise DeploymentFailed(
                f"Version {version} does not answer a picture whose answer is known: {error}"
            ) from error
        difference = compare(answer, certificate, np.arange(len(images)))
        if answer.model_version != version:
            raise DeploymentFailed(f"Version {version} was asked, and {answer.model_version} answered")
        if difference is not None:
            raise DeploymentFailed(f"Version {version} answers otherwise than when it was exported: {difference}")
    return len(certificate.images)


def compare(answer: Answer, certificate: Certificate, rows: NDArray[np.int_]) -> str | None:
    """Say how an answer with all classes differs from what is recorded for these pictures; None: it does not."""
    try:
        got = np.array(
            [[dict(prediction.top_k)[name] for name in certificate.class_names] for prediction in answer.predictions]
        )
    except KeyError as missing:
        return f"it gives no probability for the class {missing}"
    return find_difference(certificate.probabilities[rows], got)


def _as_png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
