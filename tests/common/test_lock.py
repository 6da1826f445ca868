import threading
import time

import pytest

from cifar.common.errors import Busy
from cifar.common.lock import exclusive, try_exclusive


def test_the_second_waits_for_the_first(tmp_path):
    order = []

    def second() -> None:
        with exclusive(tmp_path):
            order.append("second")

    with exclusive(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_waiting_has_an_end_that_names_what_is_waited_for(tmp_path):
    with exclusive(tmp_path), pytest.raises(Busy, match=rf"{tmp_path} for 0\.2 s"), exclusive(tmp_path, 0.2):
        pass
    with exclusive(tmp_path, 0.2):
        pass


@pytest.mark.parametrize("name", ["file", "new/folder"])
def test_files_and_missing_folders_can_be_locked_and_nothing_else_is_left(tmp_path, name):
    (tmp_path / "file").write_text("content")
    with try_exclusive(tmp_path / name) as first, try_exclusive(tmp_path / name) as second:
        assert (first, second) == (True, False)
    assert (tmp_path / "file").read_text() == "content"
    assert {path.name for path in tmp_path.rglob("*")} <= {"file", "new", "folder"}
