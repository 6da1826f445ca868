"""What a key_file.json may hold: another program may have written it, and its content goes into a header."""

import os

import orjson
import pytest

from cifar.client.tokens import Tokens


def test_the_token_of_its_kind_is_shown(tmp_path):
    file = tmp_path / "key_file.json"
    file.write_bytes(orjson.dumps({"management": {"key": "aB3-_"}, "inference": {"key": "other"}}))
    assert Tokens("management", file).headers == {"Authorization": "Bearer aB3-_"}


@pytest.mark.parametrize(
    "key", ["a\r\nHost: evil", "a b", "", "ä", 5, None, ["a"], "x" * 1001], ids=lambda key: repr(key)[:10]
)
def test_what_is_no_token_is_not_shown(tmp_path, key):
    file = tmp_path / "key_file.json"
    file.write_bytes(orjson.dumps({"management": {"key": key}}))
    assert Tokens("management", file).headers == {}


@pytest.mark.parametrize("content", ["", "[]", "[[]]", '"management"', "[" * 100_000, " " * (1 << 20)])
def test_what_is_no_key_file_holds_no_token(tmp_path, content):
    file = tmp_path / "key_file.json"
    file.write_text(content)
    assert Tokens("management", file).headers == {}
    file.unlink()
    os.mkfifo(file)  # without a writer
    assert Tokens("management", file).headers == {}
