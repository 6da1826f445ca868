"""CIFAR-10 on TorchServe, in layers that import downwards only (docs/architecture.md)."""
