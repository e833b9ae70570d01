"""The machine room as Prometheus text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ispvm.health.advice import Advice
from ispvm.health.platform import AgentLag, Platform

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Once(Collector):
    """Numbers of one moment."""

    def __init__(self, platform: Platform, agents: list[AgentLag], advice: list[Advice]) -> None:
        self._platform, self._agents, self._advice = platform, agents, advice

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        p = self._platform
        for name, text, value in (
            ("ispvm_database_bytes", "Size of the database.", p.database_bytes),
            ("ispvm_wal_bytes", "Size of the write-ahead log.", p.wal_bytes),
            ("ispvm_wal_max_bytes", "max_wal_size.", p.max_wal_bytes),
            ("ispvm_chunks_active_bytes", "Chunks being filled, when full.", p.active_bytes),
            ("ispvm_memory_bytes", "Memory of the host.", p.memory_bytes),
            ("ispvm_disk_free_bytes", "Free on the file system of the database.", p.disk_free_bytes),
            ("ispvm_growth_bytes_per_day", "Growth without retention.", p.bytes_a_day),
            ("ispvm_rollup_hours_waiting", "Hours of devices that wait for their rollup.", p.waiting_hours),
            ("ispvm_rollup_hours_overdue", "Those that are due.", p.overdue_hours),
            ("ispvm_rollup_lag_seconds", "How long the oldest has been due.", p.rollup_lag_s),
            ("ispvm_pool_connections", "Connections the server may hold.", p.pool_size),
            ("ispvm_pool_free", "Those nobody uses.", p.pool_free),
            ("ispvm_pool_waiting", "Requests that wait for one.", p.pool_waiting),
            (
                "ispvm_upkeep_last_timestamp_seconds",
                "When upkeep last ended.",
                p.last_upkeep.timestamp() if p.last_upkeep else None,
            ),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, text, value)
        yield _family("ispvm_hypertable_bytes", "Size.", ["hypertable"], [([h.name], h.bytes) for h in p.hypertables])
        yield _family(
            "ispvm_hypertable_chunks",
            "Number of chunks.",
            ["hypertable"],
            [([h.name], h.chunks) for h in p.hypertables],
        )
        dead = [([t.name], t.dead) for t in p.tables]
        yield _family("ispvm_table_dead_rows", "Dead rows; the tables with the most.", ["table"], dead)
        for name, text, values in (
            ("clients_active", "Clients that work.", [([u.user], u.clients_active) for u in p.pools]),
            ("clients_waiting", "Clients that wait.", [([u.user], u.clients_waiting) for u in p.pools]),
            ("wait_seconds", "The longest wait.", [([u.user], u.max_wait_s) for u in p.pools]),
        ):
            yield _family(f"ispvm_pgbouncer_{name}", text, ["user"], values)
        for name, text, values in (
            (
                "last_success_timestamp_seconds",
                "When a job of the community edition last succeeded.",
                [([j.name], j.last_success.timestamp()) for j in p.jobs if j.last_success],
            ),
            ("failures", "How often it failed, such as outside its window.", [([j.name], j.failures) for j in p.jobs]),
        ):
            yield _family(f"ispvm_job_{name}", text, ["job"], values)
        who = ["tenant", "agent"]
        for name, text, ages in (
            ("heartbeat_age_seconds", "Since its last heartbeat.", [(a, a.heartbeat_age_s) for a in self._agents]),
            ("batch_age_seconds", "Since its last batch.", [(a, a.batch_age_s) for a in self._agents]),
            ("buffer_depth", "Batches it keeps.", [(a, a.buffer_depth) for a in self._agents]),
            ("dropped_batches", "Batches it had to drop.", [(a, a.dropped_batches) for a in self._agents]),
        ):
            known = [([a.tenant, a.agent], float(v)) for a, v in ages if v is not None]
            yield _family(f"ispvm_agent_{name}", text, who, known)
        counted = Counter((one.severity, one.topic) for one in self._advice)
        yield _family(
            "ispvm_advice", "Things to do.", ["severity", "topic"], [(list(k), n) for k, n in counted.items()]
        )


def _family(name: str, text: str, labels: list[str], values: Sequence[tuple[list[str], float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def text(platform: Platform, agents: list[AgentLag], advice: list[Advice]) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Once(platform, agents, advice))
    return generate_latest(registry)
