"""Each service is killed in turn: systemd brings it back, data flows again, and nothing acknowledged is lost."""

from __future__ import annotations

import json

import httpx
import pytest
from conftest import ROUTERS, sql, wait_until
from testinfra.host import Host

SPOOLED = """
import json, sqlite3
db = sqlite3.connect('file:/var/lib/ispvm-agent/spool.sqlite3?mode=ro', uri=True)
one = lambda query: db.execute(query).fetchone()[0]
print(json.dumps({
    'appended': one("select coalesce(max(seq), 0) from sqlite_sequence where name = 'batch'"),
    'waiting': one('select count(*) from batch'),
    'set_aside': one('select count(*) from set_aside'),
    'dropped': one('select coalesce(sum(batches), 0) from gap'),
}))
"""


def spooled(appliance: Host) -> dict[str, int]:
    found: dict[str, int] = json.loads(appliance.check_output("python3 -c %s", SPOOLED))
    return found


def main_pid(host: Host, unit: str) -> int:
    return int(host.check_output(f"systemctl show --property=MainPID --value {unit}"))


@pytest.mark.parametrize(
    "unit", ["postgresql@17-ispvm", "pgbouncer", "ispvm-server", "ispvm-worker", "nginx", "ispvm-agent"]
)
def test_a_killed_service_comes_back_and_data_flows(appliance: Host, api: httpx.Client, unit: str) -> None:
    before = main_pid(appliance, unit)
    assert before > 0
    appliance.check_output(f"kill -9 {before}")
    wait_until(f"{unit} under another process", lambda: main_pid(appliance, unit) not in (0, before))
    wait_until(f"{unit} active", lambda: appliance.run(f"systemctl is-active {unit}").stdout.strip() == "active")

    def rows() -> int:
        answer = appliance.run("runuser -u postgres -- psql -XAtqd ispvm -c 'select count(*) from poll_device'")
        return int(answer.stdout) if answer.rc == 0 else -1

    wait_until("the database answers", lambda: rows() >= 0)
    at_recovery = rows()
    wait_until("a poll of every router after the kill", lambda: rows() >= at_recovery + ROUTERS, 90)


def test_every_batch_the_agent_ever_wrote_is_stored_exactly_once(appliance: Host) -> None:
    """The agent deletes a batch from its disk only on the server's 200, so the two ledgers must agree."""
    wait_until("the backlog to drain", lambda: spooled(appliance)["waiting"] <= 1, 90)
    appliance.check_output("systemctl stop ispvm-agent")
    try:
        agent = spooled(appliance)
        acknowledged = agent["appended"] - agent["waiting"] - agent["set_aside"] - agent["dropped"]
        stored = int(sql(appliance, "select count(*) from ingest_batch"))
        assert agent["dropped"] == 0
        assert agent["set_aside"] == 0
        assert acknowledged > 0
        # what waits may have been stored without its answer having arrived; it will be recognised when it is repeated
        assert acknowledged <= stored <= agent["appended"]
        assert sql(appliance, "select count(*) - count(distinct (device_id, ts)) from poll_device") == "0"
    finally:
        appliance.check_output("systemctl start ispvm-agent")
