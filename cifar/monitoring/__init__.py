"""Starts and stops Prometheus, Alertmanager and a log of their messages on this machine: `cifar monitor`."""
