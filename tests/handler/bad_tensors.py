"""Arrays and tensors that are rejected. id: (body, content type, query, code, words that the message must hold)."""

import json
import struct
from typing import Any

import numpy as np

from tests.handler.samples import FLAT, IMAGE, JSON, NESTED, NPY, RAW, npy_of, tensor_of

_Row = tuple[Any, str | None, dict[str, str], str, tuple[str, ...]]
_FLOATS = IMAGE.astype(np.float32)


def npy_with(header: str, *, version: bytes = b"\x01\x00", data: bytes = IMAGE.tobytes()) -> bytes:
    """An .npy file whose header says anything."""
    text = header.encode("latin-1")
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + data


def claiming(shape: str, descr: str = "'|u1'", order: str = "False") -> bytes:
    return npy_with(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n")


def _with(value: float, *, at: int = 0) -> bytes:
    floats = np.stack([_FLOATS, _FLOATS])
    floats[at, 0, 1, 0] = value
    return npy_of(floats)


def _objects() -> bytes:
    return claiming("(32, 32, 3)", "'|O'")


BAD_NPY: dict[str, _Row] = {
    "npy: empty": (b"", NPY, {}, "empty_body", ("empty",)),
    "npy: JSON": (b"[1]", NPY, {}, "malformed_npy", ("[1]", "NUMPY")),
    "npy: signature only": (b"\x93NUMPY", None, {}, "malformed_npy", ("version is missing",)),
    "npy: half a version": (b"\x93NUMPY\x01", None, {}, "malformed_npy", ("version is 1",)),
    "npy: version 9": (npy_with("{}", version=b"\x09\x00"), None, {}, "malformed_npy", ("9.0", "3.0")),
    "npy: no length": (b"\x93NUMPY\x01\x00", None, {}, "malformed_npy", ("header",)),
    "npy: cut header": (npy_of(IMAGE)[:60], NPY, {}, "malformed_npy", ("118 bytes", "50 follow")),
    "npy: header of 4 GiB": (
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + IMAGE.tobytes(), None, {}, "malformed_npy", ("4,294,967,295",)
    ),
    "npy: header of 60,000 bytes": (npy_with(" " * 60_000), None, {}, "malformed_npy", ("60,000", "1,024")),
    "npy: broken header": (npy_with("{'descr': "), None, {}, "malformed_npy", ("broken", "descr")),
    "npy: header not UTF-8": (npy_with("{'\xff': 1}"), None, {}, "malformed_npy", ("broken",)),
    "npy: deep header": (npy_with("(" * 1000), None, {}, "malformed_npy", ("broken",)),
    "npy: header of minuses": (npy_with("-" * 1000 + "1"), None, {}, "malformed_npy", ("npy",)),
    "npy: header with a call": (npy_with("__import__('os').abort()"), None, {}, "malformed_npy", ("broken",)),
    "npy: unhashable key": (npy_with("{[]: 1}"), None, {}, "malformed_npy", ("broken",)),
    "npy: NUL in the header": (npy_with("{\0}"), None, {}, "malformed_npy", ("broken",)),
    "npy: header a list": (npy_with("[1]"), None, {}, "malformed_npy", ("fortran_order",)),
    "npy: further key": (
        npy_with("{'descr': '|u1', 'fortran_order': False, 'shape': (32, 32, 3), 'x': 1}"),
        None, {}, "malformed_npy", ("exactly the keys",),
    ),
    "npy: order 1": (claiming("(32, 32, 3)", order="1"), None, {}, "malformed_npy", ("fortran_order is 1",)),
    "npy: shape a list": (claiming("[32, 32, 3]"), None, {}, "malformed_npy", ("[32, 32, 3]",)),
    "npy: negative shape": (claiming("(-1, 32, 32, 3)"), None, {}, "malformed_npy", ("-1",)),
    "npy: boolean shape": (claiming("(True, 32, 32, 3)"), None, {}, "malformed_npy", ("True",)),
    "npy: claims one more": (claiming("(2, 32, 32, 3)"), None, {}, "shape_mismatch", ("2×32×32×3", "6,144", "3,072")),
    "npy: claims wider numbers": (claiming("(32, 32, 3)", "'<f8'"), None, {}, "shape_mismatch", ("24,576", "3,072")),
    "npy: bytes left over": (npy_of(IMAGE) + b"x", NPY, {}, "shape_mismatch", ("3,073",)),
    "npy: cut": (npy_of(IMAGE)[:-1], NPY, {}, "shape_mismatch", ("3,071",)),
    "npy: claims 10**15 images": (claiming(f"({10**15}, 32, 32, 3)"), None, {}, "too_many_images", ("256",)),
    "npy: 900 digits": (claiming(f"({'9' * 900}, 32, 32, 3)"), None, {}, "too_many_images", ("256",)),
    "npy: absurd shape": (claiming(f"({10**15}, {10**15})"), None, {}, "wrong_shape", ("huge×huge", "32×32×3")),
    "npy: 257 images": (npy_of(np.stack([IMAGE] * 257)), NPY, {}, "too_many_images", ("257",)),
    "npy: no images": (npy_of(np.empty((0, 32, 32, 3), np.uint8)), NPY, {}, "no_images", ("0×32×32×3",)),
    "npy: a number": (npy_of(np.array(3, np.uint8)), NPY, {}, "wrong_shape", ("no dimension",)),
    "npy: flat": (npy_of(IMAGE.ravel()), NPY, {}, "wrong_shape", ("3,072", "32×32×3")),
    "npy: greyscale": (npy_of(IMAGE[..., 0]), NPY, {}, "wrong_shape", ("32×32",)),
    "npy: five dimensions": (npy_of(IMAGE[None, None]), NPY, {}, "wrong_shape", ("1×1×32×32×3",)),
    "npy: channels first": (npy_of(IMAGE.transpose(2, 0, 1)), NPY, {}, "channels_first", ("3×32×32", "moveaxis")),
    "npy: many channels first": (
        npy_of(np.zeros((5, 3, 32, 32), np.float32)), NPY, {}, "channels_first", ("5×3×32×32", "movedim")
    ),
    "npy: objects": (_objects(), NPY, {}, "pickled_npy", ("never opened", "allow_pickle=False")),
    "npy: objects in a table": (claiming("(32,)", "[('a', '|O')]"), None, {}, "pickled_npy", ("pickled",)),
    "npy: int64": (npy_of(IMAGE.astype(np.int64)), NPY, {}, "wrong_datatype", ("<i8", "astype(numpy.uint8)")),
    "npy: int8": (npy_of(IMAGE.astype(np.int8)), NPY, {}, "wrong_datatype", ("|i1",)),
    "npy: uint16": (npy_of(IMAGE.astype(np.uint16)), NPY, {}, "wrong_datatype", ("<u2",)),
    "npy: bool": (npy_of(IMAGE > 9), NPY, {}, "wrong_datatype", ("|b1",)),
    "npy: complex": (npy_of(IMAGE.astype(np.complex64)), NPY, {}, "wrong_datatype", ("<c8",)),
    "npy: text": (npy_of(np.array(["a"])), NPY, {}, "wrong_datatype", ("<U1",)),
    "npy: table": (npy_of(np.zeros(3, [("a", "u1")])), NPY, {}, "wrong_datatype", ("a list of 1",)),
    "npy: no such float": (claiming("(32, 32, 3)", "'<f3'"), None, {}, "wrong_datatype", ("<f3",)),
    "npy: dtype a number": (claiming("(32, 32, 3)", "8"), None, {}, "wrong_datatype", ("8",)),
    "npy: NaN": (_with(np.nan, at=1), NPY, {}, "nan", ("array[1]", "number 3 ")),
    "npy: infinity": (_with(np.inf), NPY, {}, "infinity", ("array[0]",)),
    "npy: beyond float64": (
        npy_of(np.full((32, 32, 3), np.finfo(np.longdouble).max)), NPY, {}, "infinity", ("The array",)
    ),
    "npy: negative": (_with(-0.5), NPY, {}, "negative_number", ("-0.5", "normalised")),
    "npy: 16-bit": (_with(256.5), NPY, {}, "number_too_large", ("256.5",)),
    "npy: beyond max_value": (npy_of(_FLOATS), NPY, {"max_value": "1"}, "number_too_large", ("max_value is 1",)),
    "npy: mixed scales": (npy_of(np.stack([_FLOATS, _FLOATS / 255])), NPY, {}, "mixed_scales", ("array[1]",)),
    "npy: scaled uint8": (npy_of(IMAGE), NPY, {"max_value": "1"}, "wrong_max_value", ("uint8",)),
    "npy: as raw": (npy_of(IMAGE), RAW, {}, "npy_as_raw", ("application/x-npy",)),
}  # fmt: skip


def _request(tensor: Any, **keys: Any) -> dict[str, Any]:
    return {"inputs": [tensor], **keys}


def _tensor(**keys: Any) -> dict[str, Any]:
    return _request(tensor_of(IMAGE[None], **keys))


def _without(key: str) -> dict[str, Any]:
    return _request({name: value for name, value in tensor_of(IMAGE[None]).items() if name != key})


def _asking(**keys: Any) -> dict[str, Any]:
    return _request(tensor_of(IMAGE[None]), **keys)


def _row(body: Any, code: str, *words: str) -> _Row:
    return body, JSON, {}, code, words


BAD_OPEN_INFERENCE: dict[str, _Row] = {
    "V2: beside image": _row(_asking(image=FLAT), "two_image_keys", "image and inputs"),
    "V2: no list": _row({"inputs": {}}, "wrong_inputs", "exactly one"),
    "V2: no input": _row({"inputs": []}, "wrong_inputs", "a list of 0"),
    "V2: two inputs": _row({"inputs": [tensor_of(IMAGE[None])] * 2}, "wrong_inputs", "a list of 2"),
    "V2: a number": _row({"inputs": [7]}, "wrong_inputs", "7"),
    "V2: without name": _row(_without("name"), "missing_key", "name"),
    "V2: without shape": _row(_without("shape"), "missing_key", "shape"),
    "V2: without datatype": _row(_without("datatype"), "missing_key", "datatype"),
    "V2: without data": _row(_without("data"), "missing_key", "data"),
    "V2: unknown key": _row(_asking(foo=1), "unknown_key", "'foo'", "outputs"),
    "V2: top_k as a key": _row(_asking(top_k=1), "unknown_key", "'top_k'", "parameters"),
    "V2: unknown key of the input": _row(_tensor(dtype=1), "unknown_key", "'dtype'", "datatype"),
    "V2: id a number": _row(_asking(id=7), "wrong_key_type", "id is 7"),
    "V2: id half a surrogate pair": _row(_asking(id="\ud800"), "wrong_key_type", r"\ud800"),
    "V2: name a number": _row(_tensor(name=7), "wrong_key_type", "name is 7"),
    "V2: parameters a list": _row(_asking(parameters=[1]), "wrong_key_type", "parameters is"),
    "V2: unknown parameter": _row(_asking(parameters={"threshold": 0.5}), "unknown_option", "'threshold'", "top_k"),
    "V2: binary_data_output a string": _row(
        _asking(parameters={"binary_data_output": "yes"}), "wrong_key_type", "binary_data_output", "'yes'"
    ),
    "V2: wrong top_k": _row(_asking(parameters={"top_k": 11}), "wrong_top_k", "11"),
    "V2: binary data": _row(
        _request({"name": "x", "shape": [1, 32, 32, 3], "datatype": "UINT8", "parameters": {"binary_data_size": 3072}}),
        "malformed_tensors", "3072", "0 bytes follow",
    ),
    "V2: shared memory": _row(
        _tensor(parameters={"shared_memory_region": "x"}), "unknown_option", "inputs[0]", "shared_memory_region"
    ),
    "V2: parameters of the input a number": _row(_tensor(parameters=7), "wrong_key_type", "7"),
    "V2: outputs an object": _row(_asking(outputs={"name": "label"}), "wrong_key_type", "outputs is"),
    "V2: output a string": _row(_asking(outputs=["label"]), "wrong_key_type", "outputs[0]", "'label'"),
    "V2: unknown output": _row(
        _asking(outputs=[{"name": "label"}, {"name": "score"}]), "unknown_output", "outputs[1]", "'score'", "class_"
    ),
    "V2: output without name": _row(_asking(outputs=[{}]), "unknown_output", "null"),
    "V2: binary output a number": _row(
        _asking(outputs=[{"name": "label", "parameters": {"binary_data": 1}}]), "wrong_key_type", "outputs[0]", "true"
    ),
    "V2: output in shared memory": _row(
        _asking(outputs=[{"name": "label", "parameters": {"shared_memory_region": "x"}}]),
        "unknown_option", "outputs[0]", "shared_memory_region",
    ),
    "V2: classes of the label": _row(
        _asking(outputs=[{"name": "label", "parameters": {"classification": 3}}]), "unknown_option", "classification"
    ),
    "V2: eleven classes": _row(
        _asking(outputs=[{"name": "probabilities", "parameters": {"classification": 11}}]), "wrong_key_type", "11"
    ),
    "V2: top_k_label without top_k": _row(
        _asking(outputs=[{"name": "top_k_label"}]), "unknown_output", "where the parameter top_k is set"
    ),
    "V2: 17 outputs": _row(_asking(outputs=[{"name": "label"}] * 17), "wrong_key_type", "a list of 17", "16"),
    "V2: BOOL": _row(_tensor(datatype="BOOL"), "wrong_datatype", "'BOOL'", "UINT8", "FP32"),
    "V2: INT64 beyond a byte": _row(_tensor(datatype="INT64", data=[256, *FLAT[1:]]), "number_too_large", "256"),
    "V2: negative INT8": _row(_tensor(datatype="INT8", data=[-1, *FLAT[1:]]), "negative_number", "-1"),
    "V2: fractions as INT32": _row(_tensor(datatype="INT32", data=[0.5, *FLAT[1:]]), "wrong_datatype", "INT32", "FP32"),
    "V2: BYTES of numbers": _row(_tensor(datatype="BYTES", shape=[1], data=[7]), "wrong_key_type", "7", "base64"),
    "V2: BYTES of text": _row(_tensor(datatype="BYTES", shape=[1], data=["cat!"]), "malformed_base64", "cat!"),
    "V2: BYTES with the shape of pixels": _row(_tensor(datatype="BYTES"), "wrong_shape", "[1, 32, 32, 3]", "[N]"),
    "V2: BYTES, two of one": _row(_tensor(datatype="BYTES", shape=[2], data=["AAAA"]), "shape_mismatch", "2 elements"),
    "V2: BYTES scaled": _row(
        _request(tensor_of(IMAGE[None], datatype="BYTES", shape=[1]), parameters={"max_value": 1}),
        "wrong_max_value", "BYTES",
    ),
    "V2: datatype a list": _row(_tensor(datatype=["UINT8"]), "wrong_datatype", "a list of 1"),
    "V2: fractions as UINT8": _row(_tensor(data=[0.5, *FLAT[1:]]), "wrong_datatype", "FP32"),
    "V2: shape a string": _row(_tensor(shape="1"), "wrong_key_type", "shape is '1'"),
    "V2: shape with a fraction": _row(_tensor(shape=[1.0, 32, 32, 3]), "wrong_key_type", "shape"),
    "V2: empty shape": _row(_tensor(shape=[]), "wrong_shape", "[]", "[N, 3072]"),
    "V2: flat shape, one short": _row(_tensor(shape=[1, 3071]), "wrong_shape", "[1, 3071]", "[N, 32, 32, 3]"),
    "V2: long shape": _row(_tensor(shape=[1] * 99), "wrong_shape", "…"),
    "V2: negative N": _row(_tensor(shape=[-1, 32, 32, 3]), "wrong_shape", "-1"),
    "V2: channels first": _row(_tensor(shape=[1, 3, 32, 32]), "channels_first", "[1, 3, 32, 32]", "movedim"),
    "V2: no images": _row(_tensor(shape=[0, 32, 32, 3], data=[]), "no_images", "[0, 32, 32, 3]"),
    "V2: too many": _row(_tensor(shape=[10**30, 32, 32, 3]), "too_many_images", "256"),
    "V2: 257": _row(_tensor(shape=[257, 32, 32, 3], data=FLAT * 257), "too_many_images", "257"),
    "V2: shape of two, data of one": _row(_tensor(shape=[2, 32, 32, 3]), "shape_mismatch", "6,144", "3,072 numbers"),
    "V2: nested two, data of one": _row(_tensor(shape=[2, 32, 32, 3], data=[NESTED]), "shape_mismatch", "1 images"),
    "V2: one short": _row(_tensor(data=FLAT[:-1]), "shape_mismatch", "3,071"),
    "V2: empty data": _row(_tensor(data=[]), "shape_mismatch", "0 numbers"),
    "V2: data a string": _row(_tensor(data="AAAA"), "wrong_key_type", "data is 'AAAA'"),
    "V2: string in data": _row(_tensor(data=["7", *FLAT[1:]]), "not_a_number", "image 0", "'7'"),
    "V2: 300 as UINT8": _row(_tensor(data=[300, *FLAT[1:]]), "number_too_large", "300"),
    "V2: normalised": _row(_tensor(datatype="FP32", data=[-0.5, *FLAT[1:]]), "negative_number", "normalised"),
    "V2: max_value 1 and UINT8": _row(_asking(parameters={"max_value": 1}), "wrong_max_value", "UINT8", "FP32"),
}  # fmt: skip


def _binary(document: dict[str, Any], data: bytes, *, more: int = 0) -> tuple[bytes, str]:
    """A body of JSON and bytes, and the header that says where the first ends."""
    text = json.dumps(document).encode()
    return text + data, str(len(text) + more)


def _with_bytes(follows: bytes, *, size: Any = None, **keys: Any) -> tuple[bytes, str]:
    parameters = {"binary_data_size": len(follows) if size is None else size}
    tensor = {"name": "x", "shape": [1, 32, 32, 3], "datatype": "UINT8", "parameters": parameters}
    return _binary(_request(tensor | keys), follows)


_ELEMENT = struct.pack("<I", 5) + b"hello"

# id: (body, Inference-Header-Content-Length, code, words that the message must hold)
BAD_BINARY: dict[str, tuple[bytes, str, str, tuple[str, ...]]] = {
    "binary: length no number": (b"{}", "two", "malformed_tensors", ("'two'", "at most its 2 bytes")),
    "binary: negative length": (b"{}", "-1", "malformed_tensors", ("'-1'",)),
    "binary: length of many digits": (b"{}", "9" * 400, "malformed_tensors", ("999",)),
    "binary: length beyond the body": (b"{}", "3", "malformed_tensors", ("'3'",)),
    "binary: length within the JSON": (
        *_binary(_asking(), b"", more=-1), "malformed_json", ("not JSON",)
    ),
    "binary: no JSON": (IMAGE.tobytes(), "0", "empty_body", ("empty",)),
    "binary: no inputs": (*_binary({"image": 1}, b""), "wrong_inputs", ("Inference-Header-Content-Length", "inputs")),
    "binary: JSON a list": (*_binary([1], b""), "wrong_inputs", ("a list of 1",)),  # type: ignore[arg-type]
    "binary: size of one byte more": (*_with_bytes(IMAGE.tobytes(), size=3073), "malformed_tensors", ("3073", "3,072")),
    "binary: size a string": (*_with_bytes(IMAGE.tobytes(), size="3072"), "malformed_tensors", ("'3072'",)),
    "binary: size true": (*_with_bytes(b"x", size=True), "malformed_tensors", ("true",)),
    "binary: nobody claims the bytes": (*_binary(_asking(), b"xyz"), "malformed_tensors", ("3 bytes follow",)),
    "binary: data too": (*_with_bytes(IMAGE.tobytes(), data=FLAT), "malformed_tensors", ("not both",)),
    "binary: one byte short": (*_with_bytes(IMAGE.tobytes()[1:]), "shape_mismatch", ("3,072 bytes", "3,071 bytes")),
    "binary: bytes of another type": (
        *_with_bytes(IMAGE.tobytes(), datatype="FP32"), "shape_mismatch", ("12,288", "FP32")
    ),
    "binary: NaN": (
        *_with_bytes(np.full(3072, np.nan, "<f2").tobytes(), datatype="FP16"), "nan", ("NaN", "number 0")
    ),
    "binary: negative INT64": (
        *_with_bytes(np.full(3072, -1, "<i8").tobytes(), datatype="INT64"), "negative_number", ("-1",)
    ),
    "binary: 256 in UINT16": (
        *_with_bytes(np.full(3072, 256, "<u2").tobytes(), datatype="UINT16"), "number_too_large", ("256",)
    ),
    "binary: 257 images": (
        *_with_bytes(bytes(257 * 3072), shape=[257, 3072]), "too_many_images", ("257",)
    ),
    "binary: BYTES cut": (
        *_with_bytes(_ELEMENT[:-1], datatype="BYTES", shape=[1]), "malformed_tensors", ("ends at byte 9", "8 bytes")
    ),
    "binary: BYTES, half a length": (
        *_with_bytes(_ELEMENT + b"\1\0", datatype="BYTES", shape=[2]), "malformed_tensors", ("Element 1",)
    ),
    "binary: BYTES of text": (
        *_with_bytes(_ELEMENT, datatype="BYTES", shape=[1]), "malformed_base64", ("image 0",)
    ),
    "binary: BYTES, two by the shape": (
        *_with_bytes(_ELEMENT, datatype="BYTES", shape=[2]), "shape_mismatch", ("2 elements", "1 came")
    ),
    "binary: BYTES, a million": (
        *_with_bytes(bytes(4 * 10**6), datatype="BYTES", shape=[1]), "shape_mismatch", ("more than 256",)
    ),
}  # fmt: skip
