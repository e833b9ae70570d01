"""What the role pgbouncer leaves: pooling without a stored secret, visible, hardened, and that it comes back."""

from __future__ import annotations

from functools import partial

import pytest
from conftest import Sql
from testinfra.backend.base import CommandResult
from testinfra.host import Host

PSQL = "runuser -u ispvm -- psql -X -qAt -h /run/pgbouncer -p 6432 -U ispvm -d ispvm"
QUERY_AGAIN = f"until {PSQL} -c 'select 1' 2>&-; do sleep 0.1; done"


@pytest.fixture
def pool(sql: Sql) -> partial[CommandResult]:
    """SQL through the pooler."""
    return partial(sql, socket="/run/pgbouncer", port=6432)


def test_it_runs_as_its_own_user(host: Host) -> None:
    assert host.service("pgbouncer").is_running
    assert host.service("pgbouncer").is_enabled
    assert [process.user for process in host.process.filter(comm="pgbouncer")] == ["pgbouncer"]


def test_no_tcp_listener(host: Host) -> None:
    # it has a network namespace of its own, with nothing in it
    main = host.check_output("systemctl show --property=MainPID --value pgbouncer")
    assert host.check_output("nsenter --net --target %s ss --no-header --listening --tcp --udp", main) == ""
    assert "pgbouncer" not in host.check_output("ss --listening --tcp --udp --processes")
    assert host.file("/run/pgbouncer/.s.PGSQL.6432").is_socket


def test_hardening(host: Host) -> None:
    scored = host.run("systemd-analyze security --no-pager --threshold=20 pgbouncer")
    assert scored.rc == 0, scored.stdout


def test_no_secret_is_stored(host: Host) -> None:
    userlist = host.file("/etc/pgbouncer/userlist.txt")
    users = [line.split() for line in userlist.content_string.splitlines() if not line.startswith(";")]
    assert sorted(user for user, _ in users) == ['"ispvm"', '"ispvm_owner"', '"ispvm_worker"']
    assert {password for _, password in users} == {'""'}
    assert userlist.mode == 0o640
    assert (
        host.run(
            "grep --recursive --ignore-case --extended-regexp 'password *=|SCRAM-SHA|md5[0-9a-f]{32}' /etc/pgbouncer"
        ).rc
        == 1
    )


@pytest.mark.parametrize(("user", "role"), [("ispvm", "ispvm"), ("ispvm-worker", "ispvm_worker")])
def test_the_right_user_needs_no_password(pool: partial[CommandResult], user: str, role: str) -> None:
    done = pool("select current_user", user=user, role=role)
    assert done.stdout.strip() == role, done.stderr


@pytest.mark.parametrize(
    ("user", "role"),
    [
        ("nobody", "ispvm"),
        ("ispvm", "ispvm_worker"),
        ("ispvm-worker", "ispvm"),
        ("ispvm-owner", "ispvm_owner"),
        ("root", "ispvm"),
    ],
)
def test_the_wrong_user_is_refused(pool: partial[CommandResult], user: str, role: str) -> None:
    refused = pool("select 1", user=user, role=role)
    assert refused.rc != 0
    assert "login rejected" in refused.stderr


def test_hundred_clients_share_the_pool_with_prepared_statements(host: Host, sql: Sql) -> None:
    bench = (
        "echo 'select pg_backend_pid(), :client_id' | runuser -u ispvm -- pgbench --no-vacuum --protocol=prepared"
        " --client=100 --transactions=20 --file=- --host=/run/pgbouncer --port=6432 --username=ispvm ispvm"
    )
    done = host.run(bench)
    assert "number of transactions actually processed: 2000/2000" in done.stdout, done.stderr
    assert "number of failed transactions: 0" in done.stdout
    backends = int(sql("select count(*) from pg_stat_activity where usename = 'ispvm'").stdout)
    assert 1 <= backends <= 20


def test_saturation_can_be_read_but_not_changed_by_the_server(pool: partial[CommandResult]) -> None:
    console = partial(pool, database="pgbouncer", user="ispvm", role="ispvm")
    pools = console("show pools").stdout.splitlines()
    assert any(line.startswith("ispvm|ispvm|") for line in pools)
    assert "admin access needed" in console("pause").stderr


def test_administration_gives_commands(pool: partial[CommandResult]) -> None:
    for user in ("ispvm-owner", "root"):
        done = pool("reconnect", database="pgbouncer", user=user, role="ispvm_owner")
        assert done.rc == 0, done.stderr


def test_it_comes_back_after_sigkill(host: Host) -> None:
    main = host.check_output("systemctl show --property=MainPID --value pgbouncer")
    host.check_output("kill -KILL %s", main)
    host.check_output("timeout 20 sh -c %s", QUERY_AGAIN)
    assert host.check_output("systemctl show --property=MainPID --value pgbouncer") != main


def test_work_goes_on_after_postgresql_was_killed(host: Host) -> None:
    pooler = host.check_output("systemctl show --property=MainPID --value pgbouncer")
    host.check_output("kill -KILL $(systemctl show --property=MainPID --value postgresql@17-ispvm)")
    host.check_output("timeout 20 sh -c %s", QUERY_AGAIN)
    assert host.check_output("systemctl show --property=MainPID --value pgbouncer") == pooler
