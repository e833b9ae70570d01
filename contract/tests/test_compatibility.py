"""The compatibility matrix: who is refused, and that a source which cannot be believed is refused too."""

from __future__ import annotations

import msgspec
import pytest
from ispvm_contract.compatibility import Agents, Compatibility, IngestSchema, Upgrade, compatibility


def matrix(server: str, first: str = "0.1") -> Compatibility:
    return Compatibility(1, server, Agents(2, first), (IngestSchema(1, "current"),), Upgrade((server,)), (), ())


@pytest.mark.parametrize(
    ("server", "agent", "said"),
    [
        ("1.4", "1.4.0", None),
        ("1.4", "1.4.9+0badcafe", None),
        ("1.4", "1.2.0", None),
        ("1.4", "1.1.7", "too old for this server, which takes 1.2 to 1.4"),
        ("1.4", "1.5.0", "newer than this server (1.4); upgrade the server first"),
        ("1.4", "2.0.0", "newer"),
        ("2.1", "1.9.0", "too old"),
        ("0.2", "0.1.0", None),
        ("0.2", "0.0.9", "which takes 0.1 to 0.2"),
        ("1.10", "1.9.0", None),
        ("1.10", "1.7.0", "too old"),
        ("1.4", "1", "is no version"),
        ("1.4", "1.4.0\0", "is no version"),
        ("1.4", "", "is no version"),
    ],
)
def test_agents_of_two_minor_releases_back_are_taken(server: str, agent: str, said: str | None) -> None:
    fault = matrix(server).agent_fault(agent)
    assert fault is None if said is None else said in (fault or "")


def test_the_shipped_matrix_takes_the_agent_it_was_released_with() -> None:
    known = compatibility()
    assert known.agent_fault(f"{known.server}.0") is None
    assert {cell.state for cell in known.cells} > {"tested", "untested"}


def test_a_matrix_of_another_shape_is_refused() -> None:
    raw = msgspec.json.decode(msgspec.json.encode(matrix("1.4")))
    with pytest.raises(msgspec.ValidationError, match="minors_back"):
        msgspec.convert({**raw, "agents": {"minors_back": 1, "first": "0.1"}}, Compatibility)
    with pytest.raises(msgspec.ValidationError, match="sever"):
        msgspec.convert({**raw, "sever": "1.4"}, Compatibility)
