"""Count and time what the server does, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glesam_serving.server.images import ImageCache

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._stage = Histogram(
            "glesam_stage_seconds",
            "Seconds of each stage of the work.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._request = Histogram(
            "glesam_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["endpoint", "status"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.joined = Histogram(
            "glesam_prompts_per_decoder_call",
            "Prompts that went through the decoder in one call.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.places = Gauge(
            "glesam_queue_requests", "Requests that run or wait.", registry=registry
        )
        self._cache_bytes = Gauge(
            "glesam_cache_bytes", "Memory of the encoded images.", registry=registry
        )
        self._cache_images = Gauge("glesam_cache_images", "Encoded images.", registry=registry)
        self._evicted = Gauge(
            "glesam_cache_evicted_images", "Images dropped for others.", registry=registry
        )
        self.hits = Counter(
            "glesam_cache_hits", "Images that were in the cache.", registry=registry
        )
        self.misses = Counter(
            "glesam_cache_misses", "Images that had to be encoded.", registry=registry
        )
        self.rejected = Counter(
            "glesam_rejections", "Requests refused, by reason.", ["reason"], registry=registry
        )

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Record the seconds of stages by their names."""
        for stage, value in seconds.items():
            self._stage.labels(stage).observe(value)

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Record an answer; `endpoint` is a route, not a path with ids."""
        self._request.labels(endpoint, str(status)).observe(seconds)
        if status in (401, 403, 408, 413, 422, 504):
            self.rejected.labels(str(status)).inc()

    def cache(self, cache: ImageCache) -> None:
        """Record the size of the cache."""
        self._cache_bytes.set(cache.bytes)
        self._cache_images.set(len(cache))
        self._evicted.set(cache.evicted)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
