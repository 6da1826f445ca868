"""One root, and the drawn trees are the real ones."""

import re
from types import ModuleType

import pytest

from cifar import client
from cifar.common import errors
from training import errors as training_errors

CLIENT = "client: "


def drawn(module: ModuleType) -> dict[str, str | None]:
    """Each error in the module's docstring, with the one that it hangs under."""
    found: dict[str, str | None] = {}
    path: list[str] = []
    for line in (module.__doc__ or "").splitlines():
        if match := re.match(r"((?:[│ ]   )*)([├└]── )?([A-Z]\w+Error|[A-Z]\w+)(?:  |$)", line):
            depth = len(match[1]) // 4 + bool(match[2])
            found[match[3]] = path[depth - 1] if depth else None
            path[depth:] = [match[3]]
    return found


def defined(module: ModuleType) -> dict[str, str | None]:
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    return {kind.__name__: kind.__base__.__name__ for kind in kinds if kind.__base__ is not None}


@pytest.mark.parametrize("module", [errors, training_errors], ids=lambda module: module.__name__)
def test_the_drawn_tree_is_that_of_the_classes(module):
    tree = drawn(module)
    roots = {"CifarError": "Exception", "TrainingError": "CifarError"}
    elsewhere = {"TrainingError"} if module is errors else set()
    assert {name: parent or roots[name] for name, parent in tree.items() if name not in elsewhere} == defined(module)


def test_every_error_of_the_client_is_exported_by_its_package():
    lines = (errors.__doc__ or "").splitlines()
    of_client = {name for line in lines if CLIENT in line for name in re.findall(r"─ ([A-Z]\w+)", line)}
    of_client |= {name for name, parent in drawn(errors).items() if parent in of_client}
    assert len(of_client) == 9
    assert set(client.__all__) >= of_client | {"CifarError", "ConfigUnusable"}


def test_root_catches_every_error():
    for module in (errors, training_errors):
        assert all(issubclass(getattr(module, name), errors.CifarError) for name in defined(module))
