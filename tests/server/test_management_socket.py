import os
import socket
from pathlib import Path

import pytest

from cifar.client.connection import Connection
from cifar.client.tokens import Tokens
from cifar.common.errors import PortTaken, ServerUnreachable
from cifar.server.management_socket import check_socket_free, remove_socket, write_server_config


@pytest.fixture
def listen():
    """Opens listening sockets, whatever the length of their paths."""
    opened = []

    def listen(path: Path) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        folder = os.open(path.parent, os.O_RDONLY)
        one.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        one.listen()
        opened.append(one)
        return one

    yield listen
    for one in opened:
        one.close()


@pytest.fixture(params=["short", "long" * 50])
def path(request, tmp_path):
    folder = tmp_path / request.param
    folder.mkdir()
    return folder / "m.sock"


def test_a_path_at_which_nothing_is_is_free(path):
    check_socket_free(path)
    remove_socket(path)


def test_a_socket_that_a_killed_server_left_is_removed(listen, path):
    listen(path).close()
    assert path.is_socket()
    check_socket_free(path)
    assert not path.exists()


def test_a_socket_on_which_a_server_listens_is_named_and_stays(listen, path):
    listen(path)
    with pytest.raises(PortTaken, match=r"m\.sock \(management_address\) is held by a server"):
        check_socket_free(path)
    remove_socket(path)
    assert path.is_socket()


def test_a_file_in_its_place_is_named_and_stays(path):
    path.write_text("notes")
    with pytest.raises(PortTaken, match="is no socket"):
        check_socket_free(path)
    remove_socket(path)
    assert path.read_text() == "notes"


def test_a_client_says_that_nothing_listens_on_a_socket_that_is_not_there_or_was_left(listen, path):
    for leave in (lambda: None, lambda: listen(path).close()):
        leave()
        with (
            Connection(f"unix:{path}", Tokens("management", None)) as client,
            pytest.raises(ServerUnreachable, match="nothing listens there"),
        ):
            client.send("GET", "/models")


def test_a_server_binds_a_long_path_by_a_short_name_of_its_folder(tmp_path):
    config = tmp_path / "config.properties"
    config.write_text("a=1\nmanagement_address = unix:/somewhere\nb=2\n")
    folder = tmp_path / "server"
    folder.mkdir()
    short = tmp_path / "m.sock"
    assert write_server_config(config, short, folder) == config
    assert write_server_config(config, None, folder) == config
    long = tmp_path / ("x" * 120) / "m.sock"
    long.parent.mkdir()
    written = write_server_config(config, long, folder)
    assert written.read_text() == f"a=1\nmanagement_address=unix:{folder}/m/m.sock\nb=2\n"
    assert (folder / "m").resolve() == long.parent
