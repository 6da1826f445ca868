"""Measurements, each started from the checkout by `python -m benchmarks.NAME`; those that are kept are in results/."""

import sys

from cifar.common.project import HANDLER

# Its modules import each other by their bare names, as TorchServe imports them; last, for they are common words.
sys.path.append(str(HANDLER))
