"""Writes the dashboards that Grafana reads: `python -m grafana.build`, or `make dashboards`."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from cifar.common.files import atomic_write
from grafana.model import model_dashboard
from grafana.service import service_dashboard

FOLDER = Path(__file__).resolve().parent / "dashboards"


def dashboards() -> dict[str, str]:
    """Return the text of each dashboard's file, by the file's name."""
    return {"service.json": _encode(service_dashboard()), "model.json": _encode(model_dashboard())}


def main() -> None:
    """Write them all."""
    for name, text in dashboards().items():
        with atomic_write(FOLDER / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _encode(dashboard: Dashboard) -> str:
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
