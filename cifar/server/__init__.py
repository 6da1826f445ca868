"""Starts and stops one TorchServe on this machine: `cifar up` and `cifar down`."""
