"""What must not change what is served: other users, pages in a browser, archives from outside the model store."""

import errno
import json
import os
import socket
import stat
import subprocess
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import psutil
import pytest
import requests

from tests.support.service import BIN

SPEC = "models:\n  min-workers: 1\n  max-workers: 1\n  m1:\n    url: cifar-1.0.mar\ndag:\n  m1: []\n"
HANDLER = "def handle(data, context):\n    return [b'stranger'] * len(data or [])\n"

ADDRESSES = [
    "{web}/{name}",
    "{web}/../{name}",
    "file://{outside}/{name}",
    "{outside}/{name}",
    "../outside0/{name}",
    "..%2F{name}",
    # Encoded once and twice: the pattern of allowed_urls would be matched before they are decoded.
    "file://{store}/%2e%2e/outside0/{name}",
    "file://{store}/..%2foutside0%2f{name}",
    "file://{store}/%252e%252e%252foutside0%252f{name}",
    "file://{store}/%2e%2e%5coutside0%5c{name}",
    # Other schemes, other hosts, and what comes behind a path.
    "jar:file:{outside}/{name}!/",
    "jar:{web}/{name}!/",
    "file://stranger{store}/{name}",
    "file://{store}/cifar-1.0.mar",
    "file:{store}/cifar-1.0.mar?{name}",
    "FILE://{store}/cifar-1.0.mar#{name}",
    "ftp://127.0.0.1:9/{name}",
    "netdoc:{outside}/{name}",
    ".",
    "./",
    "cifar-1.0.mar?{name}",
]


@pytest.fixture(scope="module")
def outside(archive, tmp_path_factory):
    """A folder that is not the model store, with a good archive and a workflow in it, also served over HTTP."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "good.mar").write_bytes(archive.read_bytes())
    manifest = {"workflow": {"workflowName": "flow", "specFile": "spec.yaml", "handler": "flow.py"}}
    with zipfile.ZipFile(folder / "flow.war", "w") as war:
        war.writestr("WAR-INF/MANIFEST.json", json.dumps(manifest))
        war.writestr("spec.yaml", SPEC)
        war.writestr("flow.py", "")
    return folder


@pytest.fixture(scope="module")
def web(outside):
    """The folder's HTTP server, and the paths that were asked of it."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=outside))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def unchanged(torchserve):
    """What is served, after the test as before it."""

    def read():
        models = torchserve.manage("GET", "/models").json()["models"]
        versions = torchserve.manage("GET", "/models/cifar/all").json()
        workflows = torchserve.manage("GET", "/workflows").json()["workflows"]
        store = sorted(path.name for path in torchserve.server.model_store.iterdir())
        return models, [version["modelVersion"] for version in versions], workflows, store

    before = read()
    assert before[1] == ["1.0"]
    yield
    assert read() == before


def cross_site(method, url):
    """Send what a page of a stranger can have a browser send without asking: a simple request, with its own Origin."""
    headers = {"Content-Type": "text/plain", "Origin": "http://stranger.example", "Host": "stranger.example"}
    return requests.request(method, url, headers=headers, data=b"{}", timeout=30)


def connect_as(user, path):
    """Connect to a socket as another user, in a process of its own; return the error's number."""
    child = os.fork()
    if child == 0:
        code = 255
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            code = socket.socket(socket.AF_UNIX).connect_ex(str(path))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def listening_ports(server):
    found = [
        connection for connection in server.process.net_connections("tcp") if connection.status == psutil.CONN_LISTEN
    ]
    return sorted(connection.laddr.port for connection in found)


def test_no_port_of_the_server_takes_management_requests(torchserve, unchanged):
    """Each port that can be connected to answers predictions or metrics, and nothing that changes the server."""
    endpoints = torchserve.server.addresses.endpoints
    ports = listening_ports(torchserve.server)
    assert ports == sorted(port for _host, port in endpoints.values())
    open_ports = []
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                open_ports.append(port)
    closed = endpoints["grpc_management_port"][1]
    assert open_ports == [port for port in ports if port != closed]
    for key in ("inference_address", "metrics_address"):
        url = "http://{}:{}".format(*endpoints[key])
        for method, path in (
            ("POST", "/models?url=cifar-1.0.mar&model_name=other"),
            ("PUT", "/models/cifar?min_worker=0"),
            ("PUT", "/models/cifar/1.0/set-default"),
            ("DELETE", "/models/cifar"),
            ("POST", "/workflows?url=flow.war"),
        ):
            assert cross_site(method, url + path).status_code in (404, 405), f"{method} {key}{path}"


def test_nothing_can_connect_to_the_management_api_of_grpc(torchserve):
    host, port = torchserve.server.addresses.endpoints["grpc_management_port"]
    for address in (host, "127.0.0.1", "127.0.0.2", "0.0.0.0", socket.gethostbyname(socket.gethostname())):
        with socket.socket() as probe, pytest.raises(OSError, match=r"unreachable|refused|denied"):
            probe.settimeout(10)
            probe.connect((address, port))


def test_only_its_owner_can_connect_to_the_management_socket(torchserve):
    path = torchserve.server.addresses.management_socket
    assert path.is_socket()
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    if os.getuid() == 0:  # another user can be had
        for folder in path.parents:  # pytest's folders are for their owner only, and would be what stops him
            if not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o011)
        assert connect_as(65534, path) == errno.EACCES
        assert connect_as(0, path) == 0


def test_a_workflow_archive_inside_the_model_store_is_rejected(torchserve, outside, unchanged):
    inside = torchserve.server.model_store / "flow.war"
    inside.write_bytes((outside / "flow.war").read_bytes())
    try:
        for address in ("flow.war", f"file://{inside}"):
            # Not 500 with what is wrong in it: it was not opened.
            assert torchserve.manage("POST", "/workflows", url=address).status_code == 404
        assert inside.exists()
    finally:
        inside.unlink()


@pytest.mark.parametrize(("api", "name"), [("models", "good.mar"), ("workflows", "flow.war")])
@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_from_outside_the_model_store_is_loaded(torchserve, outside, web, unchanged, api, name, address):
    url, asked = web
    assert requests.get(f"{url}/{name}", timeout=10).status_code == 200  # it could be had
    asked.clear()
    wanted = address.format(web=url, outside=outside, store=torchserve.server.model_store, name=name)
    answer = torchserve.manage("POST", f"/{api}", url=wanted)
    assert 400 <= answer.status_code <= 500, answer.text
    assert asked == []


def test_status_reports_what_was_not_deployed_under_whatever_name(torchserve, unchanged, tmp_path):
    """TorchServe takes a folder from every user of its management API, whatever allowed_urls says."""
    folder = tmp_path / "stranger"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "handler.py").write_text(HANDLER)
    manifest = {"runtime": "python", "model": {"modelName": "stranger", "handler": "handler.py", "modelVersion": "7"}}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    server = torchserve.server
    command = [str(BIN / "cifar"), "status", "--management-url", server.addresses.management]
    command += ["--model-store", str(server.model_store), "--run-dir", str(server.run_dir)]

    def cifar_status():
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    done = cifar_status()
    assert (done.returncode, done.stdout.count("not deployed")) == (0, 0), done.stdout
    registered = [f"/models/{quote('cifar')}/7", "/models/stranger"]
    try:
        assert torchserve.manage("POST", "/models", url=str(folder)).status_code == 200
        assert torchserve.manage("POST", "/models", url=str(folder), model_name="cifar").status_code == 200
        done = cifar_status()
        assert done.returncode == 1
        assert f"The model 'stranger', version 7, is served from '{folder}', and was not deployed" in done.stdout
        assert f"Version 7 is served from '{folder}', and was not deployed" in done.stdout
    finally:
        for path in registered:
            torchserve.manage("DELETE", path)
