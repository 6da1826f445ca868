"""Where the server is that a deployment changes, and the folder that it loads archives from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cifar.client.inference import InferenceClient
from cifar.client.management import ManagementClient
from cifar.client.tokens import find_tokens
from cifar.common.errors import DeploymentRunning
from cifar.server.desired_state import store_lock


@dataclass(frozen=True)
class Target:
    """A running TorchServe and its model store.

    Attributes:
        store: the server's model store, which this process can write.
        management_url, inference_url, metrics_url: its three addresses; no metrics: fewer things are watched.
        server_log: what the server writes, if this process can read it: it says why a worker does not start.
        key_file: where it writes its tokens, if it asks for them and the environment names none.
    """

    store: Path
    management_url: str
    inference_url: str
    metrics_url: str | None = None
    server_log: Path | None = None
    key_file: Path | None = None

    def manage(self) -> ManagementClient:
        """Connect to its management API."""
        tokens = find_tokens("management", self.management_url, self.management_url, self.key_file)
        return ManagementClient(self.management_url, tokens=tokens)

    def infer(self) -> InferenceClient:
        """Connect to its inference API."""
        tokens = find_tokens("inference", self.inference_url, self.management_url, self.key_file)
        return InferenceClient(self.inference_url, tokens=tokens)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only one who changes this model store; the lock goes with the process, however it ends.

        Raises:
            DeploymentRunning: another process does.
        """
        with store_lock(self.store) as mine:
            if not mine:
                raise DeploymentRunning(
                    f"Another process is changing what is served from {self.store}; wait for its end"
                )
            yield
