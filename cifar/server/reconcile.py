"""Brings a server to what serving.json says: TorchServe starts with the workers of model-config.yaml, and no others."""

from pathlib import Path

from cifar.client.management import ManagementClient
from cifar.client.tokens import Tokens
from cifar.common.addresses import Addresses
from cifar.common.errors import ModelNotFound
from cifar.server.desired_state import DesiredState


def reconcile(addresses: Addresses, key_file: Path, serving: DesiredState) -> None:
    """Register what is missing, scale, and set the default; returns before new workers are ready.

    Versions that should not be there stay: taking one away may lose requests, and is for `cifar undeploy`.

    Args:
        addresses: of a running server.
        key_file: where it writes its tokens, if it asks for them.
        serving: what it should serve.

    Raises:
        CifarError: the server rejects, or does not answer.
    """
    tokens = Tokens("management", key_file, addresses.management)
    with ManagementClient(addresses.management, tokens=tokens) as management:
        try:
            there = {described.version: described for described in management.describe_all()}
        except ModelNotFound:
            there = {}
        for served in serving.versions:
            if served.version not in there:
                management.register(served.archive)
            elif served.workers is not None and there[served.version].min_workers != served.workers:
                management.scale(served.version, served.workers)
        if serving.default is not None and management.describe().version != serving.default:
            management.set_default(serving.default)
