"""The names of all metrics, as Prometheus would read them of a service and of an indexer."""

import re
from pathlib import Path

from prometheus_client import generate_latest

from service.app import create_app
from service.commands.worker_metrics import IndexerMetrics
from service.settings import Settings


def exposed() -> dict[str, str]:
    """Name and type of every metric."""
    app = create_app(Settings(data_dir=Path("nowhere"), worker="external"))
    texts = app.state.winnow.metrics.exposition(), generate_latest(IndexerMetrics().registry)
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", b"".join(texts).decode(), re.MULTILINE))
