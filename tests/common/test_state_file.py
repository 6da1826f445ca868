"""Files are read back within bounds, and what they hold is believed only where it is what was written."""

import os

import pytest

from cifar.common.state_file import boolean, check_object, list_of, optional, read_state_file, text, whole_number

FIELDS = {
    "name": text("[a-z]+", "lower-case letters"),
    "count": whole_number(1, 9),
    "done": boolean(),
    "rows": list_of(dict, 2),
    "note": optional(text("x+", "exes")),
}
GOOD = {"name": "a", "count": 1, "done": True, "rows": [{}]}


def test_what_is_missing_and_may_be_is_none():
    assert check_object(GOOD, "it", FIELDS) == GOOD | {"note": None}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "../x"}, 'it has name "../x"; expected lower-case letters'),
        ({"name": "a\n"}, "expected lower-case letters"),
        ({"name": ["a"]}, "expected lower-case letters"),
        ({"count": 0}, "it has count 0; expected a whole number from 1 to 9"),
        ({"count": True}, "expected a whole number"),
        ({"count": 1.0}, "expected a whole number"),
        ({"done": 1}, "expected true or false"),
        ({"rows": [{}, {}, {}]}, "expected a list of up to 2"),
        ({"rows": ["a"]}, "expected a list of up to 2"),
        ({"note": "y"}, "expected exes, or null"),
        ({"other": 1}, 'it has the unknown key "other"'),
    ],
)
def test_the_first_wrong_field_is_named_with_what_was_expected(change, told):
    with pytest.raises(ValueError, match="expected") as error:
        check_object(GOOD | change, "it", FIELDS)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_object_or_lacks_a_key_is_rejected():
    with pytest.raises(ValueError, match=r"it is \[\]; expected an object"):
        check_object([], "it", FIELDS)
    with pytest.raises(ValueError, match="it lacks count"):
        check_object({"name": "a"}, "it", FIELDS)


def test_long_values_are_shown_shortened():
    with pytest.raises(ValueError, match="expected") as error:
        check_object(GOOD | {"name": "A" * 10_000}, "it", FIELDS)
    assert len(str(error.value)) < 200


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    path = tmp_path / "state.json"
    path.write_text('{"a": 1}')
    assert read_state_file(path, 8) == {"a": 1}
    with pytest.raises(ValueError, match="longer than 7 bytes"):
        read_state_file(path, 7)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"^"):
        read_state_file(path, 1 << 20)
    path.unlink()
    os.mkfifo(path)  # without a writer: opening it would block
    with pytest.raises(ValueError, match="no regular file"):
        read_state_file(path, 8)
    with pytest.raises(FileNotFoundError):
        read_state_file(tmp_path / "none", 8)
    with pytest.raises((OSError, ValueError)):
        read_state_file(tmp_path, 8)
