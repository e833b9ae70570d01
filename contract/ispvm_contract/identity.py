"""Who is who: ids that the agent, the server and the seeds derive alike, without asking each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID, uuid5

# Fixed for ever: every device id of every installation is derived from it.
DEVICE_NAMESPACE = UUID("5d0f5f3a-6f0e-5c1b-9a54-0c3f6f1f7a10")


def device_id(tenant: str, name: str) -> UUID:
    """The id of a device that was given none: stable for (tenant, name), both as written by the operator."""
    return uuid5(DEVICE_NAMESPACE, f"{tenant}/{name}")


def set_id(keys: Sequence[str]) -> str:
    """The name of an ordered set of entity keys (16 hex digits); equal for equal keys in equal order."""
    digest = hashlib.blake2b(digest_size=8)
    for key in keys:
        encoded = key.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return digest.hexdigest()
