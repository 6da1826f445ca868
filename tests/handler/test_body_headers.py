"""What headers say of a body, undone or rejected, without a server."""

import gzip
import io
import json
import zlib

import pytest

from bad_input import STATUS_OF_CODE
from body_headers import MAX_BODY_BYTES, check_form_headers, lower_names, read_body
from cifar.common.project import CONFIG
from decoding import BadInput, decode_request
from tests.handler.bad_headers import BAD_HEADERS
from tests.handler.samples import FLAT, IMAGE, JSON, RAW

BODY = IMAGE.tobytes()


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        (" GZIP ", gzip.compress(BODY)),
        ("gzip", gzip.compress(BODY[:100]) + gzip.compress(BODY[100:])),
        ("deflate", zlib.compress(BODY)),
        ("deflate", raw_deflate(BODY)),
        ("gzip, deflate", zlib.compress(gzip.compress(BODY))),
        ("identity", BODY),
        ("identity, gzip", gzip.compress(BODY)),
        ("", BODY),
    ],
)
def test_codings_are_undone_in_their_order(header, body):
    assert read_body(bytearray(body), {"content-encoding": header}) == BODY


def test_compressed_json_is_read_as_the_server_hands_it_over():
    """TorchServe cannot parse it, and hands on the bytes."""
    body = read_body(bytearray(gzip.compress(json.dumps({"image": FLAT}).encode())), {"content-encoding": "gzip"})
    assert decode_request(body, JSON, {}).images[0].tolist() == IMAGE.tolist()


def test_json_that_was_parsed_was_not_compressed():
    with pytest.raises(BadInput, match="uncompressed") as caught:
        read_body({"image": FLAT}, {"content-encoding": "gzip", "content-type": JSON})
    assert caught.value.code == "malformed_encoding"


def test_the_largest_body_may_come_compressed():
    assert read_body(gzip.compress(bytes(MAX_BODY_BYTES)), {"content-encoding": "gzip"}) == bytes(MAX_BODY_BYTES)


def test_a_compressed_body_may_hold_what_the_server_takes_uncompressed():
    [line] = [line for line in CONFIG.read_text().splitlines() if line.startswith("max_request_size=")]
    assert line == f"max_request_size={MAX_BODY_BYTES}"


def test_a_body_without_such_headers_is_handed_on_as_it_is():
    body = bytearray(BODY)
    headers = {"content-type": RAW, "content-length": "3072", "content-language": "en", "content-md5": "x"}
    assert read_body(body, headers) is body


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", '"utf-8"', "us-ascii", "utf-16", "UTF-16LE", "utf-32"])
def test_charsets_of_json_are_taken(charset):
    encoding = charset.strip('"')
    body = json.dumps({"image": FLAT}).encode(encoding)
    content_type = f"{JSON}; charset={charset}"
    assert read_body(body, {"content-type": content_type}) is body
    assert decode_request(body, content_type, {}).images[0].tolist() == IMAGE.tolist()


@pytest.mark.parametrize("content_type", ["image/png; charset=binary", f"{RAW};charset=iso-8859-1"])
def test_a_charset_means_nothing_for_bytes(content_type):
    assert read_body(BODY, {"content-type": content_type}) is BODY


@pytest.mark.parametrize(("body", "headers", "code", "words"), BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_rejection_names_the_header(body, headers, code, words):
    with pytest.raises(BadInput) as caught:
        read_body(body, lower_names({"body": {}, **headers}, 1))
    assert (caught.value.code, caught.value.status) == (code, STATUS_OF_CODE[code])
    assert [word for word in words if word not in caught.value.message] == []
    assert len(caught.value.message) < 400


def test_decompressing_stops_at_the_bound():
    """A gigabyte of zeros in a megabyte; a decompressor without bound needs seconds and a gigabyte for it."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as stream:
        for _ in range(1000):
            stream.write(bytes(1_000_000))
    with pytest.raises(BadInput) as caught:
        read_body(file.getvalue(), {"content-encoding": "gzip"})
    assert caught.value.code == "body_too_large"


@pytest.mark.parametrize("headers", [{"content-encoding": "gzip"}, {"content-range": "bytes 0-1/2"}])
def test_a_form_that_claims_a_coding_is_rejected(headers):
    with pytest.raises(BadInput):
        check_form_headers({"content-type": "multipart/form-data; boundary=x", **headers})
    check_form_headers({"content-type": "multipart/form-data; boundary=x", "content-encoding": "identity"})


def test_names_in_one_case_or_values_that_agree_are_no_conflict():
    headers = {"body": {"content-type": ""}, "Content-Type": RAW, "content-type": RAW, "Accept": "a", "accept": "b"}
    assert lower_names(headers, 1)["content-type"] == RAW
