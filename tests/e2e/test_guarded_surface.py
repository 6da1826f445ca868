"""What the management API must not load: anything from outside the model store, by whatever address."""

import json
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

SPEC = "models:\n  min-workers: 1\n  max-workers: 1\n  m1:\n    url: cifar-1.0.mar\ndag:\n  m1: []\n"


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


def test_a_workflow_archive_inside_the_model_store_is_refused(torchserve, outside):
    inside = torchserve.server.model_store / "flow.war"
    inside.write_bytes((outside / "flow.war").read_bytes())
    try:
        for address in ("flow.war", f"file://{inside}"):
            answer = requests.post(f"{torchserve.management_url}/workflows", params={"url": address}, timeout=60)
            # Not 500 with what is wrong in it: it was not opened.
            assert answer.status_code == 404, answer.text
        assert requests.get(f"{torchserve.management_url}/workflows", timeout=10).json() == {"workflows": []}
        assert inside.exists()
    finally:
        inside.unlink()


@pytest.mark.parametrize(("api", "name"), [("models", "good.mar"), ("workflows", "flow.war")])
@pytest.mark.parametrize(
    "address",
    [
        "{web}/{name}",
        "{web}/../{name}",
        "file://{outside}/{name}",
        "{outside}/{name}",
        "../outside0/{name}",
        "..%2F{name}",
    ],
)
def test_nothing_from_outside_the_model_store_is_loaded(torchserve, outside, web, api, name, address):
    url, asked = web
    assert requests.get(f"{url}/{name}", timeout=10).status_code == 200  # it could be had
    asked.clear()
    wanted = address.format(web=url, outside=outside, name=name)
    answer = requests.post(f"{torchserve.management_url}/{api}", params={"url": wanted}, timeout=60)
    assert answer.status_code == 404, answer.text
    assert asked == []
    assert [path.name for path in torchserve.server.model_store.iterdir()] == ["cifar-1.0.mar"]
    assert requests.get(f"{torchserve.management_url}/workflows", timeout=10).json() == {"workflows": []}
    [served] = requests.get(f"{torchserve.management_url}/models/cifar/all", timeout=10).json()
    assert served["modelVersion"] == "1.0"
