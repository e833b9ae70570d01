"""What the role timescaledb leaves: the right edition, quiet, held, and updated in every database that has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Sql
from testinfra.host import Host

UNIT = "postgresql@17-ispvm"
SCRIPT = Path(__file__).resolve().parents[3] / "roles" / "timescaledb" / "files" / "extension.sh"
UNLOADED = "set timescaledb.disable_load = on; "


def run_script(host: Host, database: str, edition: str) -> tuple[int, str, str]:
    """The script that the role runs, as the role runs it."""
    done = host.run("runuser -u postgres -- sh -c %s sh 5432 %s %s", SCRIPT.read_text(), database, edition)
    return done.rc, done.stdout, done.stderr


def test_apache_edition_is_loaded(sql: Sql) -> None:
    assert sql("show timescaledb.license").stdout.strip() == "apache"
    assert sql("show shared_preload_libraries").stdout.strip() == "timescaledb,pg_stat_statements"
    assert sql("select count(*) from pg_settings where pending_restart").stdout.strip() == "0"


def test_no_background_worker_and_no_noise(host: Host, sql: Sql) -> None:
    assert sql("show timescaledb.max_background_workers").stdout.strip() == "0"
    journal = host.check_output(f"journalctl --unit={UNIT} --output=cat --no-pager")
    assert "not supported under the current" not in journal
    assert "Job History Log Retention" not in journal


def test_package_is_held(host: Host) -> None:
    assert host.check_output("apt-mark showhold").split() == ["postgresql-17-timescaledb"]


def test_hypertable_with_chunks_that_are_dropped(host: Host, sql: Sql) -> None:
    query = (
        "create table proof (device int, ts timestamptz not null, rx bigint[]);"
        "select create_hypertable('proof', by_range('ts', interval '8 hours'), create_default_indexes => false);"
        "insert into proof select 1, t, array[1, 2]"
        " from generate_series('2026-01-01'::timestamptz, '2026-01-02', '1 hour') t;"
        "select count(*) from show_chunks('proof');"
        "select count(*) from drop_chunks('proof', older_than => '2026-01-01 16:00'::timestamptz);"
        "select count(*) from proof;"
        "drop table proof"
    )
    done = sql(query)
    assert done.rc == 0, done.stderr
    assert done.stdout.split("\n")[-4:-1] == ["4", "2", "9"]


@pytest.fixture
def outdated(host: Host, sql: Sql) -> Iterator[None]:
    """The database after the package was upgraded under it: it wants a library that is gone."""
    assert sql(UNLOADED + "update pg_extension set extversion = '2.19.2' where extname = 'timescaledb'").rc == 0
    query = "update _timescaledb_catalog.metadata set value = '2.19.2' where key = 'timescaledb_version'"
    assert (
        host.run(f"PGOPTIONS='-c timescaledb.disable_load=on' runuser -u postgres -- psql -X ispvm -c \"{query}\"").rc
        == 0
    )
    yield
    run_script(host, "ispvm", "apache")


@pytest.mark.usefixtures("outdated")
def test_extension_is_updated_although_the_old_library_is_gone(host: Host, sql: Sql) -> None:
    assert 'could not access file "$libdir/timescaledb-2.19.2"' in sql("select 1").stderr
    code, out, err = run_script(host, "ispvm", "apache")
    assert (code, out) == (0, "ispvm: updated 2.19.2 to 2.19.3\n"), err
    assert sql("select extversion from pg_extension where extname = 'timescaledb'").stdout.strip() == "2.19.3"
    assert run_script(host, "ispvm", "apache")[:2] == (0, "")


def test_another_edition_than_wanted_is_an_error(host: Host) -> None:
    code, _, err = run_script(host, "ispvm", "timescale")
    assert code == 1
    assert "timescaledb.license is apache and should be timescale" in err
