"""The metrics of the server for Prometheus."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hazard.web.errors import RequestError

if TYPE_CHECKING:
    from hazard.web.engine.engine import Engine

METRICS_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(eq=False)
class ServerCounts:
    """Counts since the start of the server. Only its event loop changes them."""

    answers: Counter[int] = field(default_factory=Counter)
    """The number of answers by HTTP status."""
    uploads: int = 0
    upload_bytes: int = 0

    def count_upload(self, size_bytes: int) -> None:
        """Count one complete upload."""
        self.uploads += 1
        self.upload_bytes += size_bytes


def render_metrics(counts: ServerCounts, engine: "Engine") -> bytes:
    """Return all current metrics in Prometheus' text format. Raises RequestError 404 without prometheus-client."""
    if find_spec("prometheus_client") is None:
        raise RequestError(404, "metrics need prometheus-client: pip install prometheus-client")
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ServerCollector(counts, engine))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


@dataclass(frozen=True, eq=False)
class _ServerCollector:
    counts: ServerCounts
    engine: "Engine"

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        answers = CounterMetricFamily("hazard_serve_answers", "Answers by HTTP status.", labels=["status"])
        for status, count in sorted(dict(self.counts.answers).items()):
            answers.add_metric([str(status)], count)
        yield answers
        yield CounterMetricFamily("hazard_serve_uploads", "Complete uploads.", value=self.counts.uploads)
        yield CounterMetricFamily(
            "hazard_serve_upload_bytes", "Bytes of complete uploads.", value=self.counts.upload_bytes
        )
        jobs = GaugeMetricFamily("hazard_serve_jobs", "Stored jobs by state.", labels=["state"])
        counts = Counter(job.state for job in self.engine.list_jobs())
        for state in ("queued", "fetching", "decoding", "done", "failed"):
            jobs.add_metric([state], counts[state])
        yield jobs
        yield GaugeMetricFamily("hazard_serve_workers", "Running analysis workers.", value=self.engine.workers)
        yield GaugeMetricFamily("hazard_serve_queued", "Waiting videos.", value=self.engine.queue_length)
