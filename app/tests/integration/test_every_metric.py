"""Whatever the registry names is stored in its column, is a series of the API with the registry's words, can be read
as a sample, and only by its own tenant.
"""

from __future__ import annotations

from uuid import uuid4

import msgspec
import psycopg
import pytest
from feeder import AGENT, ms
from ispvm.store.columns import array_columns, columns, landing_types
from ispvm.web.more import TITLES
from ispvm_contract.identity import set_id
from ispvm_contract.ingest import Batch, EntityPatch, InventoryPatch, Poll, Value
from server_world import World

SAMPLES: dict[str, Value] = {"real": 12.5, "bigint": 1 << 40, "smallint": 1, "boolean": True}


@pytest.mark.parametrize("kind", landing_types())
async def test_every_metric_has_a_column_and_is_read_back(world: World, owner: psycopg.Connection, kind: str) -> None:
    now, device = world.now(), world.feeder.id("EDGE-NTH-1")
    keys = ["one", "two"] if array_columns(kind) else []
    stored = columns(kind)
    poll = Poll(
        device,
        ms(now),
        kind,
        {name: [SAMPLES[column.kind], None] if keys else [SAMPLES[column.kind]] for name, column in stored.items()},
        set_id(keys) if keys else None,
    )
    entities = [EntityPatch(device, kind, key, key) for key in keys]
    patch = InventoryPatch(devices=world.feeder.inventory().devices, entities=entities)
    batch = Batch(1, uuid4(), ms(now), AGENT, sets={set_id(keys): keys} if keys else {}, polls=[poll])
    batch.inventory_patch = patch
    assert (await world.sent(batch))["rejected"] == []
    page = (await world.get(f"/devices/{device}")).text
    for metric in (column.metric for column in stored.values()):
        if kind in TITLES or metric.name.startswith("optics."):
            assert f">{metric.label}<" in page, metric.name
    for name, column in stored.items():
        hour = {"from": round(now.timestamp()) - 3600, "to": round(now.timestamp()) + 60}
        series = await world.json("/api/v1/series", device=device, key=keys[0] if keys else "", metric=name, **hour)
        told = [value for value in msgspec.convert(series["avg"], list[float | None]) if value is not None]
        assert told == [float(SAMPLES[column.kind] or 0)], name
        words = (kind, column.metric.label, column.metric.unit)
        assert (series["entity_type"], series["label"], series["unit"]) == words, name
    names = ", ".join(column.name for column in stored.values())
    rows = owner.execute(
        f"select {names} from sample_{kind} s join device d on d.id = s.device_id where d.uuid = %s", [device]
    ).fetchall()
    expected = [tuple(SAMPLES[column.kind] for column in stored.values())]
    if keys:
        expected.append((None,) * len(stored))
    assert sorted(rows, key=str) == sorted(expected, key=str)
    secured = owner.execute(
        "select relrowsecurity and relforcerowsecurity, hypertable_name is not null from pg_class c"
        " left join timescaledb_information.hypertables on hypertable_name = relname where relname = %s",
        [f"poll_{kind}"],
    ).fetchone()
    assert secured == (True, True)
