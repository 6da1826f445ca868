"""docs/openapi.yaml: valid, and what the running server does, whatever is sent."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from openapi_spec_validator.readers import read_from_filename
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cifar.common.project import ROOT
from tests.handler.samples import png_of

DOCUMENT = ROOT / "docs" / "openapi.yaml"
SCHEMA = schemathesis.openapi.from_path(DOCUMENT)
FORM_EXCEPTIONS = (
    "ErrorDataDecoderException",
    "StringIndexOutOfBoundsException",
    "ArrayIndexOutOfBoundsException",
)
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


def test_the_document_is_valid():
    document, _ = read_from_filename(str(DOCUMENT))
    validate(document)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "misfitting"])
@pytest.mark.parametrize("path", ["/predictions/cifar", "/predictions/cifar/{version}", "/v2/models/cifar/infer"])
def test_the_server_keeps_to_the_document(torchserve, path, mode):
    """A property-based tester makes bodies, headers and versions from the document, and breaks them."""
    answered = set()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=SCHEMA[path]["POST"].as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        answer = case.call(base_url=torchserve.url, timeout=30)
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 500:
            # TorchServe's front end takes forms apart; what it cannot, never comes to the handler (docs/adr/0006).
            assert case.media_type == "multipart/form-data"
            assert answer.json()["type"] in FORM_EXCEPTIONS
        answered.add(answer.status_code)

    ask()
    assert answered, "nothing was sent"


@pytest.mark.parametrize("kind", ["one", "many", "scaled", "V2", "V2 top_k", "form", "top_k", "base64"])
def test_predictions_have_the_form_that_the_document_gives_them(torchserve, images, kind):
    """The property-based tester hardly ever makes an image; here the good answers are held against the document."""
    scaled = (images[0] / 255).tolist()
    tensor = {"name": "images", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": images[0].ravel().tolist()}
    if kind == "form":
        files = {"cat": ("cat.npy", npy(images[0])), "dog": ("dog.npy", npy(images[1]))}
        answer = requests.post(f"{torchserve.url}/predictions/cifar", files=files, timeout=60)
    elif kind in ("one", "many", "top_k"):
        body = images[: 3 if kind == "many" else 1].tobytes()
        answer = torchserve.post(body, "application/octet-stream", **({"X_Top_K": "10"} if kind == "top_k" else {}))
    else:
        document: dict[str, Any] = {"image": scaled} if kind == "scaled" else {"inputs": [tensor], "parameters": {}}
        if kind == "base64":
            document = {"instances": [{"b64": base64.b64encode(png_of(images[0])).decode()}]}
        if kind == "V2 top_k":
            document["parameters"] = {"top_k": 2}
        answer = torchserve.post(json.dumps(document), "application/json")
    assert answer.status_code == 200, answer.text
    SCHEMA["/predictions/cifar"]["POST"].validate_response(answer)


def npy(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, image)
    return file.getvalue()
