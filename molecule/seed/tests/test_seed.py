"""Demo data arrive where they may, and are refused in production by guards that do not lean on each other.

The first guard, in the play, is shown in the scenario `appliance`; here it is bypassed, for there is no such play.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]


def converge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook again, with other variables."""
    inventories = [f"--inventory={ROOT}/molecule/{name}/inventory" for name in ("shared", "seed")]
    settings = {
        "ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg",
        "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
        "ANSIBLE_FORCE_COLOR": "0",
    }
    environment = {**os.environ, **settings}
    command = ["ansible-playbook", *inventories, *arguments, str(ROOT / "molecule/seed/converge.yml")]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def sql(host: Host, query: str) -> str:
    """One value, asked as the superuser."""
    return str(host.check_output("runuser -u postgres -- psql -XAtqd ispvm -c %s", query))


MARK = "update deployment set environment = '{}'"


@pytest.fixture
def production(host: Host) -> Iterator[None]:
    """The database says it is production. Putting it back takes a superuser who switches the database's guard off."""
    sql(host, MARK.format("production"))
    yield
    sql(host, f"set session_replication_role = replica; {MARK.format('demo')}")


def test_the_bundle_is_in_the_database(host: Host) -> None:
    assert sql(host, "select count(*) from tenant where key = 'demo' and seeded") == "1"
    assert sql(host, "select count(*) from site") == "3"
    assert sql(host, "select count(*) from device") == "6"


def test_the_days_before_have_a_history_that_says_it_is_generated(host: Host) -> None:
    assert sql(host, "select count(distinct day) from sample_day where day < current_date") == "2"
    part = "select upper(generated) - lower(generated) >= interval '2 days' from tenant where key = 'demo'"
    assert sql(host, part) == "t"


def test_a_bundle_that_is_there_changes_nothing(host: Host) -> None:
    assert host.check_output("ispvm seed apply /etc/ispvm/seeds/demo_small.json").splitlines()[-1] == "unchanged"


def test_the_role_refuses_production(host: Host) -> None:
    before = sql(host, "select count(*) from device")
    done = converge("--extra-vars", "seed_environment=production")
    assert done.returncode != 0
    assert "production never gets demo data" in " ".join(done.stdout.split())
    assert "Load it" not in done.stdout
    assert sql(host, "select count(*) from device") == before


@pytest.mark.usefixtures("production")
def test_the_database_refuses_when_play_and_role_are_bypassed(host: Host) -> None:
    done = converge("--extra-vars", "seed_environment=demo")
    assert done.returncode != 0
    assert "refused:" in done.stdout
    direct = host.run("ispvm seed apply /etc/ispvm/seeds/demo_small.json")
    assert direct.rc == 3
    assert "production" in direct.stderr


@pytest.mark.usefixtures("production")
def test_what_is_production_never_becomes_anything_else(host: Host) -> None:
    done = host.run("ispvm migrate")
    assert done.rc == 3
    assert "production, which never changes" in done.stderr
    directly = host.run("runuser -u postgres -- psql -Xqd ispvm -c %s", MARK.format("demo"))
    assert directly.rc == 1
    assert "production, which never changes" in directly.stderr


def test_an_unknown_bundle_is_refused_by_name(host: Host) -> None:
    assert host.file("/etc/ispvm/seeds/demo_small.json").exists
    done = converge("--extra-vars", "seed_name=nowhere")
    assert done.returncode != 0
    assert "seeds/nowhere.json" in done.stdout
