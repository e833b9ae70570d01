"""The container images of a bundle: what is in them, and podman's copy of one that says what it is."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import testhost

USER = 65532


def read(image: Path) -> tuple[dict[str, Any], list[bytes]]:
    """The configuration of an OCI image, and its layers."""
    with tarfile.open(image) as archive:

        def member(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None  # noqa: S101 - our own images have it
            return file.read()

        def blob(digest: str) -> bytes:
            return member(f"blobs/sha256/{digest.removeprefix('sha256:')}")

        manifest = json.loads(blob(json.loads(member("index.json"))["manifests"][0]["digest"]))
        return json.loads(blob(manifest["config"]["digest"])), [blob(one["digest"]) for one in manifest["layers"]]


def load(bundle: Path, component: str, architecture: str) -> str:
    """Have podman load an image, which must be of this release and run as nobody's user; return its name."""
    path = bundle / component / f"ispvm-{component}-{architecture}.oci.tar"
    name = testhost.podman("load", "--quiet", "--input", str(path)).split()[-1]
    release = json.loads((bundle / "release.json").read_text())
    (seen,) = json.loads(testhost.podman("image", "inspect", name))
    expected = {
        "version": release["version"],
        "commit": release["commit"],
        "architecture": architecture,
        "user": f"{USER}:{USER}",
    }
    labels = seen["Labels"]
    said = {
        "version": labels["org.opencontainers.image.version"],
        "commit": labels["org.opencontainers.image.revision"],
        "architecture": seen["Architecture"],
        "user": seen["User"],
    }
    if said != expected or not labels["org.opencontainers.image.created"].startswith("20"):
        raise testhost.TesthostError(f"{path.name} says {said}, release.json {expected}")
    return name
