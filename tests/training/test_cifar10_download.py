"""The source `cifar10`: torchvision's own download code, from a server on this machine."""

import hashlib
import io
import pickle
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from training import cifar10_download
from training.cifar10_download import download_cifar10
from training.errors import DataError
from training.torchvision_compat import allow_mixed_builds

FILES = ["data_batch_1", "data_batch_2", "test_batch"]


def cifar_files(classes):
    """CIFAR's layout: pickled dicts, one row an image, all its red values first, then green, then blue."""
    files = {}
    for number, name in enumerate(FILES):
        pixels = np.random.default_rng(number).integers(0, 256, (10, 3072), dtype=np.uint8)
        labels = [(index + number) % 10 for index in range(10)]
        files[name] = pickle.dumps({"batch_label": name, "data": pixels, "labels": labels}, protocol=2)
    files["batches.meta"] = pickle.dumps({"label_names": list(classes), "num_vis": 3072}, protocol=2)
    return files


def pack(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def md5(content):
    return hashlib.md5(content).hexdigest()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


class NoHttp(BaseHTTPRequestHandler):
    def do_GET(self):
        self.wfile.write(b"220 this is a mail server\r\n")

    do_HEAD = do_GET

    def log_message(self, format, *args):
        pass


@pytest.fixture
def serve():
    """Start a server for a handler on a free port; give its address."""
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture
def offer(serve, tmp_path, monkeypatch):
    """Put an archive on a server, and its checksums where torchvision looks for those of CIFAR-10."""
    allow_mixed_builds()
    from torchvision.datasets import CIFAR10

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "server"
    folder.mkdir()

    def publish(files):
        archive = pack(files)
        (folder / "cifar-10-python.tar.gz").write_bytes(archive)
        server = serve(partial(QuietFiles, directory=str(folder)))
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz")
        monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
        monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(files[name])] for name in FILES[:2]])
        monkeypatch.setattr(CIFAR10, "test_list", [[name, md5(files[name])] for name in FILES[2:]])
        monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(files["batches.meta"])})
        return CIFAR10, server

    return publish


def test_planes_of_colour_become_images_with_their_labels(offer, tmp_path, classes):
    offer(cifar_files(classes))
    parts = download_cifar10(tmp_path / "raw", classes)
    images, labels = parts["train"]
    assert images.shape == (20, 32, 32, 3)
    assert (images.dtype.name, labels.dtype.name) == ("uint8", "int64")
    assert labels.tolist() == [*range(10), *range(1, 10), 0]
    assert parts["test"][1].tolist() == [*range(2, 10), 0, 1]
    row = np.random.default_rng(1).integers(0, 256, (10, 3072), dtype=np.uint8)[4]
    for channel in range(3):
        assert np.array_equal(images[14, :, :, channel].ravel(), row[1024 * channel : 1024 * (channel + 1)])


def test_what_was_downloaded_is_not_downloaded_again(offer, tmp_path, classes):
    _, server = offer(cifar_files(classes))
    first = download_cifar10(tmp_path / "raw", classes)
    server.shutdown()
    server.server_close()
    again = download_cifar10(tmp_path / "raw", classes)
    assert np.array_equal(first["train"][0], again["train"][0])


def test_a_wrong_checksum_of_the_archive_is_rejected(offer, tmp_path, classes, monkeypatch):
    cifar10, _ = offer(cifar_files(classes))
    monkeypatch.setattr(cifar10, "tgz_md5", md5(b"another archive"))
    with pytest.raises(DataError, match="could not be had from http://127") as caught:
        download_cifar10(tmp_path / "raw", classes)
    assert "prepare.source=folder" in str(caught.value)  # the way out


def test_a_batch_that_was_changed_afterwards_is_fetched_again(offer, tmp_path, classes):
    offer(cifar_files(classes))
    first = download_cifar10(tmp_path / "raw", classes)
    (tmp_path / "raw" / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"changed")
    again = download_cifar10(tmp_path / "raw", classes)
    assert np.array_equal(first["train"][0], again["train"][0])


def test_a_server_that_is_gone_is_a_data_error(offer, tmp_path, classes):
    _, server = offer(cifar_files(classes))
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="could not be had"):
        download_cifar10(tmp_path / "raw", classes)


def test_a_server_that_lacks_the_file_is_a_data_error(offer, tmp_path, classes, monkeypatch):
    cifar10, _ = offer(cifar_files(classes))
    monkeypatch.setattr(cifar10, "url", cifar10.url + ".old")
    with pytest.raises(DataError, match="404"):
        download_cifar10(tmp_path / "raw", classes)


def test_a_server_that_does_not_speak_http_is_a_data_error(offer, serve, tmp_path, classes, monkeypatch):
    cifar10, _ = offer(cifar_files(classes))
    monkeypatch.setattr(cifar10, "url", f"http://127.0.0.1:{serve(NoHttp).server_port}/cifar-10-python.tar.gz")
    with pytest.raises(DataError, match="could not be had"):
        download_cifar10(tmp_path / "raw", classes)


def test_other_class_names_are_rejected(offer, tmp_path, classes):
    offer(cifar_files([*classes[:9], "lorry"]))
    with pytest.raises(DataError, match="lorry"):
        download_cifar10(tmp_path / "raw", classes)


def test_without_torchvision_it_says_how_to_install_it(tmp_path, classes, monkeypatch):
    def missing():
        raise ModuleNotFoundError("torchvision is not installed: pip install -e '.[training]'")

    monkeypatch.setattr(cifar10_download, "allow_mixed_builds", missing)
    with pytest.raises(DataError, match="pip install"):
        download_cifar10(tmp_path / "raw", classes)
