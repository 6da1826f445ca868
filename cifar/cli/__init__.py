"""The `cifar` command: options, tables, exit codes. The only package that knows all others."""
