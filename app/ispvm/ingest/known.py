"""What ingest knows while it stores a batch: which devices and key sets there are, which times are taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from ispvm_contract.ingest import MAX_FUTURE_SECONDS

NUL = "holds a NUL character, which cannot be stored"


@dataclass(slots=True)
class Known:
    """What the database knows of the devices a batch speaks of."""

    devices: dict[UUID, int] = field(default_factory=dict)
    sets: dict[tuple[int, str, str], tuple[int, int]] = field(
        default_factory=dict
    )  # (device, type, name) → (id, length)


def unknown_device(device: UUID) -> str:
    """Why something of a device is rejected."""
    return f"device {device} is not known at this agent's sites; send it in inventory_patch.devices"


def moment(epoch_ms: int) -> datetime:
    """A contract time as datetime; raises ValueError when it is beyond any calendar."""
    try:
        return datetime.fromtimestamp(epoch_ms / 1000, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise ValueError(f"ts {epoch_ms} is not a time in milliseconds since 1970") from error


@dataclass(frozen=True, slots=True)
class Taken:
    """Times that data may have, in milliseconds since 1970: from `oldest`, the first that raw data are kept of, until a
    little after `now`.
    """

    now: int
    oldest: int

    @staticmethod
    def at(now: datetime, raw_days: int) -> Taken:
        """What is taken at this moment."""
        ms = int(now.timestamp() * 1000)
        return Taken(ms, ms - raw_days * 86_400_000)

    def check(self, ts: int) -> None:
        """Raise ValueError saying what is wrong with a time."""
        if self.oldest <= ts <= self.now + MAX_FUTURE_SECONDS * 1000:
            return
        when = moment(ts).isoformat()
        if ts < self.oldest:
            raise ValueError(f"ts {when} is older than raw data are kept")
        raise ValueError(f"ts {when} is more than {MAX_FUTURE_SECONDS} s in the future; set the agent's clock")
