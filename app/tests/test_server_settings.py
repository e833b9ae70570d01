from __future__ import annotations

import re
from pathlib import Path

import pytest
from ispvm import cli, settings

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_the_documented_file_is_accepted() -> None:
    text = re.search(r"`/etc/ispvm/server\.toml`\n```toml\n(.*?)```", ARCHITECTURE.read_text(), re.DOTALL)
    assert text is not None
    found = settings.parse(text[1])
    assert found.environment == "demo"
    assert found.storage.chunk_hours == 24
    assert found.cache.valkey == ""
    assert found.origin == "https://monitor.example.net"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('environment = "demo"', 'environment = "prod"', "environment: invalid enum value 'prod'"),
        ("schema_version = 1", "schema_version = 2", "schema_version: invalid enum value 2"),
        ("[database]", "colour = 1\n[database]", "colour: unknown field"),
        ("[database]", "[database]\npool_size = 0", "database.pool_size: expected `int` >= 1"),
        ("[database]", "[retention]\nraw_days = 0\n[database]", "retention.raw_days: expected `int` >= 1"),
        (
            "[database]",
            '[retention]\nmaintenance_window = "2-5"\n[database]',
            "retention.maintenance_window: write it as",
        ),
        ("https://monitor.example.net", "monitor.example.net", "public_url: write it as https://name"),
        ("user=ispvm_worker", "user=ispvm_worker password=x", "database.worker_dsn: holds a password"),
        (
            'worker_dsn = "host=/run/pgbouncer port=6432 dbname=ispvm user=ispvm_worker"',
            "",
            "database.worker_dsn: missing",
        ),
        (
            "[database]",
            '[cache]\nvalkey = "valkey://10.0.0.1:6379"\n[database]',
            "cache.valkey: write it as unix:///run",
        ),
        ("[database]", '[cache]\nredis = ""\n[database]', "cache.redis: unknown field"),
        ("[database]", "[database", "not TOML"),
    ],
)
def test_a_fault_names_the_field(config: str, old: str, new: str, fault: str) -> None:
    with pytest.raises(settings.SettingsError) as caught:
        settings.parse(config.replace(old, new))
    assert fault in str(caught.value)


def test_every_fault_is_told_at_once(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "server.toml"
    path.write_text(config.replace('"demo"', '"prod"').replace("[database]", "[database]\npool_size = 0\nextra = 1"))
    assert cli.main(["check-config", str(path)]) == 2
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "environment",
        "database.pool_size",
        "database.extra",
    ]


def test_check_config_is_quiet_about_a_good_file(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "server.toml"
    path.write_text(config)
    assert cli.main(["check-config", str(path)]) == 0
    assert capsys.readouterr() == ("", "")


def test_an_absent_file_is_an_error_not_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(tmp_path / "none.toml"), "migrate"]) == 2
    assert "cannot be read" in capsys.readouterr().err
