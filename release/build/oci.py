"""Container images, written member by member: the same bytes wherever they are made, without root and without a daemon.

An image holds Debian's Python and our wheels, nothing else: no shell, no package manager, no tool. Its packages are
those of `release/apt.lock`, unpacked and not configured. Layers are stored uncompressed, so that no compressor's
version can change a digest; the bundle is compressed as a whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from release.build import debian
from release.build.source import BuildError, Release, add

USER = 65532  # no user of a host, by convention of images without a distribution's user list
SITE = "usr/local/lib/python3.13/dist-packages"
SKIPPED = ("usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/share/lintian/", "usr/share/bug/")
ENTRYPOINTS = {
    "agent": ["/usr/bin/python3", "-I", "-m", "ispvm_agent"],
    "server": ["/usr/bin/python3", "-I", "-c", "import sys; from ispvm.cli import main; sys.exit(main())"],
}


def kept(name: str) -> bool:
    """Whether a file of a package goes into an image: of the documentation only the licences."""
    return not name.startswith(SKIPPED) and (not name.startswith("usr/share/doc/") or name.endswith("/copyright"))


class Layer:
    """An uncompressed tar in the making. Members may come in any order and are written sorted."""

    def __init__(self, epoch: int) -> None:
        """`epoch`: the time of every member that has none of its own."""
        self.epoch = epoch
        self.members: dict[str, tuple[tarfile.TarInfo, bytes]] = {}

    def put(
        self, name: str, content: bytes = b"", mode: int = 0o644, kind: bytes = tarfile.REGTYPE, owner: int = 0
    ) -> None:
        """Add a file, or with another `kind` a directory."""
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime, member.type = len(content), mode, self.epoch, kind
        member.uid = member.gid = owner
        self.members[name] = (member, content)

    def take(self, archive: tarfile.TarFile) -> None:
        """Add what a Debian package installs; root's, without set-user-id bits."""
        for member in archive:
            name = member.name.removeprefix("./").rstrip("/")
            if name in ("", ".") or not kept(name):
                continue
            if not (member.isfile() or member.isdir() or member.issym()):
                raise BuildError(f"{name}: neither file, directory nor symbolic link; the image writer knows no other")
            if member.isdir() and name in self.members:
                continue
            file = archive.extractfile(member) if member.isfile() else None
            clean = tarfile.TarInfo(name)
            clean.type, clean.linkname, clean.mtime, clean.size = (
                member.type,
                member.linkname,
                member.mtime,
                member.size,
            )
            clean.mode = member.mode & 0o1777
            self.members[name] = (clean, file.read() if file else b"")

    def bytes(self) -> bytes:
        """The tar, with every directory above a member."""
        for name in list(self.members):
            for parent in Path(name).parents:
                if str(parent) != "." and str(parent) not in self.members:
                    self.put(str(parent), mode=0o755, kind=tarfile.DIRTYPE)
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for _, (member, content) in sorted(self.members.items()):
                archive.addfile(member, io.BytesIO(content) if member.isfile() else None)
        return output.getvalue()


def debian_layer(debs: Iterable[Path], component: str, release: Release) -> bytes:
    """Debian's Python with what it needs, the authorities' certificates, one user, and a note of each package."""
    layer = Layer(release.source_date_epoch)
    for deb in debs:
        members = debian.parts(deb)
        with debian.unpacked(members, "data") as archive:
            layer.take(archive)
        text = debian.control(members)
        name = next(line.split(": ")[1] for line in text.splitlines() if line.startswith("Package: "))
        # where scanners look for the packages of an image without dpkg
        layer.put(f"var/lib/dpkg/status.d/{name}", f"{text}\n".encode())
    found = {
        name: content for name, (_, content) in layer.members.items() if name.startswith("usr/share/ca-certificates/")
    }
    authorities = [found[name].rstrip(b"\n") + b"\n" for name in sorted(found) if name.endswith(".crt")]
    layer.put("etc/ssl/certs/ca-certificates.crt", b"".join(authorities))
    user = f"ispvm-{component}" if component == "agent" else "ispvm"
    layer.put(
        "etc/passwd", f"root:x:0:0:root:/:/usr/sbin/nologin\n{user}:x:{USER}:{USER}::/:/usr/sbin/nologin\n".encode()
    )
    layer.put("etc/group", f"root:x:0:\n{user}:x:{USER}:\n".encode())
    layer.put("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    layer.put("tmp", mode=0o1777, kind=tarfile.DIRTYPE)
    layer.put(f"var/lib/{user}", mode=0o700, kind=tarfile.DIRTYPE, owner=USER)
    return layer.bytes()


def wheel_layer(wheels: Iterable[Path], release: Release) -> bytes:
    """Wheels as an installer would unpack them, without commands of their own."""
    layer = Layer(release.source_date_epoch)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as opened:
            for name in opened.namelist():
                head, _, tail = name.partition("/")
                if name.endswith("/") or (head.endswith(".data") and not tail.startswith(("purelib/", "platlib/"))):
                    continue
                place = tail.partition("/")[2] if head.endswith(".data") else name
                layer.put(f"{SITE}/{place}", opened.read(name))
    return layer.bytes()


def image(component: str, architecture: str, layers: Sequence[bytes], release: Release, out: Path) -> None:
    """Write one image as an OCI layout in a tar. Labels say version, commit and time."""
    created = datetime.fromtimestamp(release.source_date_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {
        "org.opencontainers.image.title": f"ispvm-{component}", "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.revision": release.commit, "org.opencontainers.image.created": created,
        "org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.vendor": "ISPVisualMonitor",
    }  # fmt: skip
    files: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        files[f"blobs/sha256/{digest}"] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    def text(value: object) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    described = [blob(layer, "layer.v1.tar") for layer in layers]
    config = {
        "architecture": architecture, "os": "linux", "created": created,
        "config": {
            "User": f"{USER}:{USER}", "Entrypoint": ENTRYPOINTS[component], "Labels": labels, "WorkingDir": "/",
            "Env": ["PATH=/usr/bin", "LC_ALL=C.UTF-8", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
        },
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in described]},
        "history": [{"created": created, "created_by": what} for what in ("release/apt.lock", "wheels")],
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(text(config), "config.v1+json"), "layers": described, "annotations": labels,
    }  # fmt: skip
    entry = blob(text(manifest), "manifest.v1+json")
    entry["platform"] = {"architecture": architecture, "os": "linux"}
    entry["annotations"] = {"org.opencontainers.image.ref.name": f"localhost/ispvm-{component}:{release.version}"}
    files["index.json"] = text(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    )
    files["oci-layout"] = text({"imageLayoutVersion": "1.0.0"})
    out.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(files):
            add(archive, name, files[name], 0o644, release.source_date_epoch)


def build(
    packages: Iterable[debian.Package], files: dict[str, Path], wheelhouses: Path, release: Release, into: Path
) -> None:
    """Write the images: the server for amd64, the agent for amd64 and arm64. `wheelhouses`: holds one per processor."""
    packages = sorted(packages)
    for component, architecture in (("server", "amd64"), ("agent", "amd64"), ("agent", "arm64")):
        debs = [
            files[p.sha256] for p in packages if p.index == architecture and f"{component}-image" in p.uses.split(",")
        ]
        house = wheelhouses / architecture
        digests = set((house / f"{component}.txt").read_text().replace("--hash=sha256:", " ").split())
        wheels = [
            path for path in sorted(house.glob("*.whl")) if hashlib.sha256(path.read_bytes()).hexdigest() in digests
        ]
        layers = [debian_layer(debs, component, release), wheel_layer(wheels, release)]
        image(component, architecture, layers, release, into / component / f"ispvm-{component}-{architecture}.oci.tar")
