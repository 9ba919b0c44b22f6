"""The server in numbers, as Prometheus collects them."""

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
    """Counted since the server began, by its one thread that answers."""

    answers: Counter[int] = field(default_factory=Counter)
    """By HTTP status."""
    uploads: int = 0
    upload_bytes: int = 0

    def count_upload(self, size_bytes: int) -> None:
        """One that came whole."""
        self.uploads += 1
        self.upload_bytes += size_bytes


def render_metrics(counts: ServerCounts, engine: "Engine") -> bytes:
    """All numbers of this moment. Raises Refused without the package."""
    if find_spec("prometheus_client") is None:
        raise RequestError(404, "metrics need prometheus-client: pip install 'hazard-video[metrics]'")
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
        yield CounterMetricFamily("hazard_serve_uploads", "Uploads that came whole.", value=self.counts.uploads)
        yield CounterMetricFamily("hazard_serve_upload_bytes", "Their bytes.", value=self.counts.upload_bytes)
        jobs = GaugeMetricFamily("hazard_serve_jobs", "Jobs that are kept, by state.", labels=["state"])
        found = Counter(job.state for job in self.engine.jobs())
        for state in ("queued", "fetching", "decoding", "done", "failed"):
            jobs.add_metric([state], found[state])
        yield jobs
        yield GaugeMetricFamily("hazard_serve_workers", "Workers that work.", value=self.engine.workers)
        yield GaugeMetricFamily("hazard_serve_queued", "Videos that wait.", value=self.engine.queue_length)
