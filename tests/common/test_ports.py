import os
import socket
import subprocess
import sys

import pytest

from cifar.common.errors import PortTaken
from cifar.common.ports import check_ports_free


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_free_ports_pass(listener):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    check_ports_free({"inference_address": ("127.0.0.1", port)})


def test_every_taken_port_is_named_with_its_key_and_holder(listener):
    with socket.create_server(("127.0.0.1", 0)) as other:
        second = other.getsockname()[1]
        with pytest.raises(PortTaken) as error:
            check_ports_free({"inference_address": ("127.0.0.1", listener), "metrics_address": ("127.0.0.1", second)})
    for port, key in ((listener, "inference_address"), (second, "metrics_address")):
        assert f"127.0.0.1:{port} ({key}) is held by process {os.getpid()}" in str(error.value)


def test_the_holders_command_line_is_shown():
    program = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); "
    command = [sys.executable, "-c", program + "time.sleep(60)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            port = int(holder.stdout.readline())
            with pytest.raises(PortTaken, match=rf"process {holder.pid} \(.*python.*import socket"):
                check_ports_free({"metrics_address": ("127.0.0.1", port)})
        finally:
            holder.kill()


def test_address_of_another_machine_is_rejected_with_the_reason():
    with pytest.raises(PortTaken, match=r"192\.0\.2\.1:8080 cannot be listened on: "):
        check_ports_free({"inference_address": ("192.0.2.1", 8080)})
