"""What the role postgresql leaves on a host: settings, access, hardening, and that it comes back."""

from __future__ import annotations

import pytest
from conftest import Sql
from testinfra.host import Host

UNIT = "postgresql@17-ispvm"


def test_the_cluster_runs_and_will_after_a_boot(host: Host) -> None:
    assert host.service(UNIT).is_running
    assert host.check_output(f"systemctl is-enabled {UNIT}") in ("enabled", "enabled-runtime")
    clusters = [line.split()[:4] for line in host.check_output("pg_lsclusters --no-header").splitlines()]
    assert clusters == [["17", "ispvm", "5432", "online"]]


def test_no_tcp_listener(host: Host) -> None:
    # it has a network namespace of its own, with nothing in it
    main = host.check_output(f"systemctl show --property=MainPID --value {UNIT}")
    assert host.check_output("nsenter --net --target %s ss --no-header --listening --tcp --udp", main) == ""
    assert "postgres" not in host.check_output("ss --listening --tcp --udp --processes")
    assert host.file("/run/postgresql/.s.PGSQL.5432").is_socket


def test_hardening(host: Host) -> None:
    scored = host.run(f"systemd-analyze security --no-pager --threshold=30 {UNIT}")
    assert scored.rc == 0, scored.stdout
    assert host.process.filter(comm="postgres", user="root") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen_addresses", ""),
        ("max_connections", "51"),
        ("shared_buffers", "512MB"),
        ("effective_cache_size", "1228MB"),
        ("work_mem", "10MB"),
        ("max_wal_size", "2GB"),
        ("autovacuum_vacuum_insert_scale_factor", "0.05"),
        ("default_toast_compression", "lz4"),
        ("wal_compression", "lz4"),
        ("jit", "off"),
        ("data_checksums", "on"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("password_encryption", "scram-sha-256"),
        ("deadlock_timeout", "2s"),  # postgresql_settings of this scenario
    ],
)
def test_setting_is_in_force(sql: Sql, name: str, value: str) -> None:
    assert sql(f"show {name}").stdout.strip() == value


def test_nothing_waits_for_a_restart_and_no_file_is_refused(sql: Sql) -> None:
    assert sql("select name from pg_settings where pending_restart").stdout == ""
    assert sql("select name, error from pg_file_settings where error is not null").stdout == ""
    assert sql("select line_number, error from pg_hba_file_rules where error is not null").stdout == ""


def test_builtin_locale(sql: Sql) -> None:
    found = sql(
        "select datlocprovider, datlocale, pg_encoding_to_char(encoding) from pg_database where datname='ispvm'"
    )
    assert found.stdout.strip() == "b|C.UTF-8|UTF8"


def test_roles_are_powerless_and_have_no_password(sql: Sql) -> None:
    assert sql("select rolname from pg_authid where rolpassword is not null").stdout == ""
    found = sql(
        "select rolname, rolconnlimit from pg_roles where rolcanlogin and not (rolsuper or rolcreatedb or rolcreaterole"
        " or rolreplication or rolbypassrls) order by 1"
    )
    assert found.stdout.split() == ["ispvm|20", "ispvm_owner|10", "ispvm_worker|6"]
    assert sql("select rolname from pg_roles where rolsuper").stdout.split() == ["postgres"]
    assert sql("select datdba::regrole from pg_database where datname = 'ispvm'").stdout.strip() == "ispvm_owner"


@pytest.mark.parametrize(
    ("user", "role"), [("ispvm-owner", "ispvm_owner"), ("pgbouncer", "ispvm"), ("pgbouncer", "ispvm_worker")]
)
def test_the_right_user_needs_no_password(sql: Sql, user: str, role: str) -> None:
    assert sql("select current_user", user=user, role=role).stdout.strip() == role


@pytest.mark.parametrize(
    ("user", "role"),
    [
        ("nobody", "ispvm"),
        ("nobody", "ispvm_owner"),
        ("nobody", "postgres"),
        ("pgbouncer", "ispvm_owner"),
        ("pgbouncer", "postgres"),
        ("ispvm-owner", "ispvm"),
        ("ispvm-owner", "postgres"),
        ("root", "postgres"),
    ],
)
def test_the_wrong_user_is_refused_by_peer(sql: Sql, user: str, role: str) -> None:
    refused = sql("select 1", user=user, role=role)
    assert refused.rc != 0
    assert "Peer authentication failed" in refused.stderr


def test_other_databases_are_closed(sql: Sql) -> None:
    refused = sql("select 1", user="pgbouncer", role="ispvm", database="postgres")
    assert "pg_hba.conf rejects connection" in refused.stderr


def test_only_the_owner_makes_objects(sql: Sql) -> None:
    assert (
        "permission denied for schema public"
        in sql("create table public.mine (a int)", user="pgbouncer", role="ispvm").stderr
    )
    made = sql("create table public.ours (a int); drop table public.ours", user="ispvm-owner", role="ispvm_owner")
    assert made.rc == 0, made.stderr


def test_slowest_statements_have_names(sql: Sql) -> None:
    sql("select 42 as pg_stat_statements_proof", user="ispvm-owner", role="ispvm_owner")
    query = "select count(*) from pg_stat_statements where query like '%pg_stat_statements_proof%'"
    assert int(sql(query, user="ispvm-owner", role="ispvm_owner").stdout) >= 1


def test_it_comes_back_after_sigkill_with_what_was_committed(host: Host, sql: Sql) -> None:
    owner = {"user": "ispvm-owner", "role": "ispvm_owner"}
    assert sql("create table if not exists proof (n int); insert into proof values (1)", **owner).rc == 0
    before = int(sql("select count(*) from proof", **owner).stdout)
    main = host.check_output(f"systemctl show --property=MainPID --value {UNIT}")
    host.check_output("kill -KILL %s", main)
    host.check_output(
        "timeout 30 sh -c %s",
        "until runuser -u postgres -- psql -X -qAt -d ispvm -c 'select 1' 2>&-; do sleep 0.1; done",
    )
    assert host.check_output(f"systemctl show --property=MainPID --value {UNIT}") != main
    assert host.service(UNIT).is_running
    assert int(sql("select count(*) from proof", **owner).stdout) == before
    assert sql("drop table proof", **owner).rc == 0


def test_an_administrators_restart_works_as_ever(host: Host, sql: Sql) -> None:
    host.check_output("pg_ctlcluster 17 ispvm restart")
    assert sql("select 1").stdout.strip() == "1"
    host.check_output("pg_ctlcluster 17 ispvm stop")
    assert not host.service(UNIT).is_running  # stopped means stopped
    host.check_output("pg_ctlcluster 17 ispvm start")
    assert sql("select 1").stdout.strip() == "1"
