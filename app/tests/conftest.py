from __future__ import annotations

import pytest
from ispvm import settings

CONFIG = """
schema_version = 1
environment = "demo"
public_url = "https://monitor.example.net"
socket = "/run/ispvm/server.sock"
[database]
dsn = "host=/run/pgbouncer port=6432 dbname=ispvm user=ispvm"
worker_dsn = "host=/run/pgbouncer port=6432 dbname=ispvm user=ispvm_worker"
owner_dsn = "host=/run/postgresql port=5432 dbname=ispvm user=ispvm_owner"
"""


@pytest.fixture
def config() -> str:
    return CONFIG


@pytest.fixture
def plain_settings() -> settings.Settings:
    return settings.parse(CONFIG)
