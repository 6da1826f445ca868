"""How many workers an archive asks for: in its model-config.yaml, which its manifest must name."""

from pathlib import Path
from typing import Any

import yaml

from cifar.archives.archive import Archive
from cifar.common.errors import ArchiveRejected

_MAX_CONFIG = 1 << 16  # bytes; ours has 1,200
_MAX_DEPTH = 20
_MAX_WORKERS = 1024  # as many processes
_ADD = (
    "Without it TorchServe starts no worker. Pack it with --config-file model-config.yaml, in which stand "
    "minWorkers: 2 and maxWorkers: 2"
)


def read_worker_counts(called: Path, archive: Archive) -> tuple[int, int]:
    """Return minWorkers and maxWorkers, as TorchServe takes them.

    Args:
        called: the archive's name in messages.
        archive: open.

    Raises:
        ArchiveRejected: it asks for none, or in a form that TorchServe passes over.
    """
    named = archive.manifest.get("configFile")
    name = archive.find_file("configFile")
    if name is None:
        found = "names none (configFile)" if named is None else f"names {repr(named)[:100]}, which is not in it"
        raise ArchiveRejected(f"{called} lacks its model-config.yaml: its manifest {found}. {_ADD}")
    try:
        config = _parse(archive.zip.read(name, _MAX_CONFIG))
    except (yaml.YAMLError, ArithmeticError, AttributeError, TypeError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise ArchiveRejected(f"{called}: {name} cannot be read: {said}. {_ADD}") from None
    counts = [_read_count(config, key) for key in ("minWorkers", "maxWorkers")]
    least, most = counts
    if least is None or most is None or most < least:
        said = ", ".join(f"{key}: {_show(config, key)}" for key in ("minWorkers", "maxWorkers"))
        raise ArchiveRejected(
            f"{called}: {name} asks for no workers ({said}); expected numbers from 1 to {_MAX_WORKERS}, maxWorkers not "
            f"below minWorkers. {_ADD}"
        )
    return least, most


def _parse(content: bytes) -> Any:
    depth = 0
    for event in yaml.parse(content, yaml.SafeLoader):
        # 60 kB of aliases, merged again and again, become more than fits into memory; depth takes its square of time.
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has aliases (*name), which no configuration of a model needs")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
    return yaml.safe_load(content)


def _read_count(config: Any, key: str) -> int | None:
    value = config.get(key) if isinstance(config, dict) else None
    fits = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_WORKERS
    return value if fits else None


def _show(config: Any, key: str) -> str:
    if not isinstance(config, dict):
        return f"in a {type(config).__name__} instead of a mapping"
    return repr(config[key])[:40] if key in config else "missing"
