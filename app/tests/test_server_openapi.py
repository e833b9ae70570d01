from __future__ import annotations

import json
import re

from ispvm.server import create_app
from ispvm.settings import Settings


def test_every_reference_of_the_document_is_defined(plain_settings: Settings) -> None:
    document = create_app(plain_settings).openapi()
    wanted = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert wanted <= set(document["components"]["schemas"])
    assert {"Batch", "Heartbeat", "Poll", "Series", "Summary"} <= wanted


def test_every_route_says_how_it_refuses(plain_settings: Settings) -> None:
    paths = create_app(plain_settings).openapi()["paths"]
    assert {p for p in paths if p.startswith("/api")} == {
        "/api/v1/series",
        "/api/v1/compatibility",
        "/api/v1/top",
        "/api/v1/reports/p95",
        "/api/v1/reports/p95.csv",
        "/api/v1/reports/p95/picture",
        "/api/v1/incidents",
        "/api/v1/map",
        "/api/v1/summary",
        "/api/v1/sites",
        "/api/v1/devices",
        "/api/v1/devices/{device_id}",
    }
    for path, methods in paths.items():
        for operation in methods.values():
            assert "HTTPValidationError" not in json.dumps(operation)
            if path.startswith(("/api", "/ingest")):
                schema = operation["responses"]["422"]["content"]["application/json"]["schema"]
                assert schema["$ref"].endswith(("/Refusal", "/RefusalOut")), path


def test_two_applications_share_nothing(plain_settings: Settings) -> None:
    one, other = create_app(plain_settings), create_app(plain_settings)
    assert one.state.answers is not other.state.answers
    assert one.state.throttle is not other.state.throttle
