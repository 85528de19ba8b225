"""Gauges: what Prometheus reads. Jobs and workers are counted in the database, so that every server tells the same."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

from kinetograph.archive import Archive
from kinetograph.jobs import Store

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
STATES = ("queued", "paused", "in_progress", "completed", "failed", "cancelled")


class Gauges:
    """The figures of one server."""

    def __init__(self, store: Store, archive: Archive) -> None:
        self._registry = CollectorRegistry()
        names = ("method", "route", "status")
        self._requests = Counter("kinetograph_requests", "Requests answered.", names, registry=self._registry)
        self._seconds = Histogram(
            "kinetograph_request_seconds",
            "How long answers took.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Queue(store, archive))

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request, by the pattern of its route: ids would be names without end."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD") else "other"
        self._requests.labels(method, route, str(status)).inc()
        if not route.endswith("/events"):
            self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of them, in the text format."""
        return generate_latest(self._registry)


class _Queue(Collector):
    def __init__(self, store: Store, archive: Archive) -> None:
        self._store, self._archive = store, archive

    def describe(self) -> list[Metric]:
        return []  # nothing is asked of the database when the registry is made

    def collect(self) -> Iterator[Metric]:
        counts = self._store.counts()
        jobs = GaugeMetricFamily("kinetograph_jobs", "Jobs in each state.", labels=["state"])
        for state in STATES:
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs
        yield GaugeMetricFamily("kinetograph_workers", "Workers alive.", value=len(self._store.workers()))
        yield GaugeMetricFamily("kinetograph_archive_free_bytes", "Room in the archive.", value=self._archive.free())
