from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from uuid import UUID

import msgspec
import pytest
import zstandard
from ispvm.ingest.decode import check_limits, decode, decompress
from ispvm.refusal import RefusedError
from ispvm_contract.ingest import Agent, Batch, Event, Poll

ID = UUID(int=1)
BATCH = Batch(1, ID, 0, Agent("a", "1"))


@pytest.mark.parametrize("encoding", ["zstd", "gzip", "identity", ""])
def test_every_encoding_round_trips(encoding: str) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {"zstd": zstandard.compress, "gzip": gzip.compress}
    packed = pack.get(encoding, bytes)(b"x" * 1000)
    assert decompress(packed, encoding) == b"x" * 1000


@pytest.mark.parametrize(("encoding", "pack"), [("zstd", zstandard.compress), ("gzip", gzip.compress)])
def test_a_bomb_is_refused_before_it_unfolds(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(4_000_000))
    with pytest.raises(RefusedError) as caught:
        decompress(bomb, encoding, limit=1_000_000)
    assert caught.value.status == 413
    assert "1000000" in caught.value.refusal.problem


@pytest.mark.parametrize(
    ("body", "encoding", "status"), [(b"no", "zstd", 422), (gzip.compress(b"xyz")[:-9], "gzip", 422), (b"", "br", 415)]
)
def test_broken_or_unknown_compression_is_refused(body: bytes, encoding: str, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        decompress(body, encoding)
    assert caught.value.status == status


def test_both_formats_decode() -> None:
    assert decode(msgspec.msgpack.encode(BATCH), "application/msgpack", Batch) == BATCH
    assert decode(msgspec.json.encode(BATCH), "application/json; charset=utf-8", Batch) == BATCH


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"polls": [{"device": str(ID), "ts": "now", "entity_type": "device", "columns": {}}]}, "polls[0].ts"),
        ({"schema_version": 2}, "schema_version"),
        ({"sets": {"xyz": ["a"]}}, "sets"),
        ({"agent": {"name": "", "version": "1"}}, "agent.name"),
        ({"id": 7}, "id"),
    ],
)
def test_a_fault_names_its_field(change: dict[str, object], field: str) -> None:
    raw = {"schema_version": 1, "id": str(ID), "sent_at": 0, "agent": {"name": "a", "version": "1"}, **change}
    with pytest.raises(RefusedError) as caught:
        decode(json.dumps(raw).encode(), "application/json", Batch)
    assert caught.value.status == 422
    assert caught.value.refusal.field.startswith(field)


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [(b"{", "application/json", 422), (b"\xc1", "application/msgpack", 422), (b"", "text/plain", 415), (b"", "", 415)],
)
def test_undecodable_bodies_are_refused(body: bytes, media: str, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        decode(body, media, Batch)
    assert caught.value.status == status


def test_too_many_metrics_or_events_are_refused_by_name_and_limit() -> None:
    poll = Poll(ID, 0, "device", {"device.cpu_pct": [1.0] * 50_001})
    with pytest.raises(RefusedError, match="polls: 50001 values, the limit is 50000"):
        check_limits(Batch(1, ID, 0, Agent("a", "1"), polls=[poll]))
    packed = Poll(ID, 0, "interface", {"interface.rx_bytes_total": bytes(8 * 50_001)}, "0" * 16)
    with pytest.raises(RefusedError, match="polls: 50001 values, the limit is 50000"):
        check_limits(Batch(1, ID, 0, Agent("a", "1"), polls=[packed]))
    event = Event(ID, 0, "device.rebooted", ID, "info")
    with pytest.raises(RefusedError, match="events: 10001 events, the limit is 10000"):
        check_limits(Batch(1, ID, 0, Agent("a", "1"), events=[event] * 10_001))
    check_limits(Batch(1, ID, 0, Agent("a", "1"), polls=[Poll(ID, 0, "device", {"device.cpu_pct": [1.0] * 50_000})]))
