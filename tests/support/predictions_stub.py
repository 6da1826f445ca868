"""TorchServe's gRPC call for predictions, without generated code: grpcio-tools' pins contradict this project's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "org.pytorch.serve.grpc.inference"
_FIELD = descriptor_pb2.FieldDescriptorProto


def _field(message: Any, name: str, number: int, kind: int, *, type_name: str = "", many: bool = False) -> None:
    label = _FIELD.LABEL_REPEATED if many else _FIELD.LABEL_OPTIONAL
    message.field.add(name=name, number=number, type=kind, label=label, type_name=type_name or None)


def _messages() -> tuple[Any, Any]:
    """PredictionsRequest and PredictionResponse, as inference.proto in TorchServe's jar describes them."""
    file = descriptor_pb2.FileDescriptorProto(name="inference.proto", package=_PACKAGE, syntax="proto3")
    request = file.message_type.add(name="PredictionsRequest")
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    _field(entry, "key", 1, _FIELD.TYPE_STRING)
    _field(entry, "value", 2, _FIELD.TYPE_BYTES)
    _field(request, "model_name", 1, _FIELD.TYPE_STRING)
    _field(request, "model_version", 2, _FIELD.TYPE_STRING)
    entry_name = f".{_PACKAGE}.PredictionsRequest.InputEntry"
    _field(request, "input", 3, _FIELD.TYPE_MESSAGE, type_name=entry_name, many=True)
    response = file.message_type.add(name="PredictionResponse")
    _field(response, "prediction", 1, _FIELD.TYPE_BYTES)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}") for message in (request, response))
    first, second = (message_factory.GetMessageClass(descriptor) for descriptor in found)
    return first, second


@contextmanager
def predictions(host: str, port: int) -> Iterator[Any]:
    """Give the call: inputs by name, and optionally a version, to the bytes of the answer."""
    request_type, response_type = _messages()
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        call = channel.unary_unary(
            f"/{_PACKAGE}.InferenceAPIsService/Predictions",
            request_serializer=request_type.SerializeToString,
            response_deserializer=response_type.FromString,
        )

        def predict(version: str = "", **inputs: bytes) -> bytes:
            request = request_type(model_name="cifar", model_version=version, input=inputs)
            answer: bytes = call(request, timeout=30).prediction
            return answer

        yield predict
