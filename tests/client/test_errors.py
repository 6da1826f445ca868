import re

import client
from client import errors

# Other packages hang errors of their own below the root; those are theirs to draw.
DEFINED = {name for name, kind in vars(errors).items() if isinstance(kind, type)}


def test_drawn_tree_holds_every_error_and_no_other():
    tree = re.findall(r"^ {4}[│├└─ ]*([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    assert len(tree) == len(set(tree))
    assert set(tree) == DEFINED


def test_every_error_is_exported_by_the_package():
    assert set(client.__all__) >= DEFINED


def test_root_catches_every_error():
    assert all(issubclass(getattr(errors, name), errors.CifarError) for name in DEFINED)
