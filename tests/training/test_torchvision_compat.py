"""torchvision beside a PyTorch of another build. What an import does to a process, a fresh process shows."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training import torchvision_compat

REPOSITORY = Path(__file__).resolve().parents[2]


def run_python(program):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)


def test_torchvision_imports_after_one_call_and_after_two():
    done = run_python("""
from training.torchvision_compat import allow_mixed_builds
allow_mixed_builds()
allow_mixed_builds()
import torch
from torchvision.datasets import CIFAR10
allow_mixed_builds()
print(CIFAR10.__name__, torch.ops.torchvision.nms.default._schema.name)
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["CIFAR10", "torchvision::nms"]


def test_operators_that_torchvision_defined_itself_are_left_alone():
    done = run_python("""
import torch
from training import torchvision_compat
def define_as_a_matching_build_does():
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.impl("torchvision::nms", "cpu", lambda dets, scores, iou_threshold: dets + 41)
torchvision_compat._load_torchvision_library = define_as_a_matching_build_does
torchvision_compat.allow_mixed_builds()
print(torch.ops.torchvision.nms(torch.ones(1), torch.ones(1), 0.5).item())
print(hasattr(torch.ops.torchvision, "qnms"))  # what it did not define is there too
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["42.0", "True"]


def test_a_library_that_does_not_load_is_passed_over(monkeypatch, tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_C.so").write_bytes(b"built for another PyTorch")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    torchvision_compat._load_torchvision_library()


def test_without_torchvision_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        torchvision_compat.allow_mixed_builds()
