"""Our own artefacts from one source tree: wheels, sdists, the agent as one file for both processors, its .deb.

The release and `rebuild` in an unpacked bundle run this very module, so a rebuild has nothing of its own to get wrong.
Nothing here needs a network. The tools are those of requirements/build.txt.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from release.build import wheelhouse
from release.build.source import BuildError, Release, add

# which distributions stand in which directory of the release
ROOMS = {"contract": ("agent", "server"), "agent": ("agent",), "app": ("server",), "lab": ("lab",)}
PEX = "agent/ispvm-agent.pex"

POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
    # root's own copy of the agent, unpacked once: the service cannot write the code that it runs
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    agent=/usr/lib/ispvm-agent
    PEX_ROOT=$scratch PEX_TOOLS=1 /usr/bin/python3 $agent/ispvm-agent.pex venv --force $agent/venv
    systemd-sysusers ispvm-agent.conf
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl try-restart ispvm-agent.service
    fi
fi
"""
PRERM = """#!/bin/sh
set -e
if [ "$1" = remove ]; then
    [ ! -d /run/systemd/system ] || systemctl stop ispvm-agent.service
    rm -rf /usr/lib/ispvm-agent/venv
fi
"""


def environment(release: Release, home: Path) -> dict[str, str]:
    """What every tool of the build sees: nothing of the machine but where programs are."""
    return {
        "PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "TZ": "UTC", "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "SOURCE_DATE_EPOCH": str(release.source_date_epoch),
    }  # fmt: skip


def run(command: Sequence[str | Path], cwd: Path, release: Release) -> None:
    """Run one tool of the build; on failure raise with what it said."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment(release, Path(home)),
                              capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode != 0:
        raise BuildError(f"{' '.join(map(str, command[:4]))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def tools(wheels: Path, release: Release, into: Path) -> Path:
    """Make an environment with the locked build tools and nothing else; return its Python.

    pex looks at what is importable beside it: in any other environment the agent gets other bytes.
    """
    run([sys.executable, "-m", "venv", "--without-pip", into], into.parent, release)
    (pip,) = wheels.glob("pip-*.whl")
    run([into / "bin/python", pip / "pip", "--disable-pip-version-check", "--no-cache-dir", "--no-input", "install",
         "--no-index", f"--find-links={wheels}", "--only-binary=:all:", "--require-hashes", "--no-deps",
         f"--requirement={wheels / 'build.txt'}"], into.parent, release)  # fmt: skip
    return into / "bin/python"


def distributions(python: Path, source: Path, release: Release, into: Path) -> list[Path]:
    """Build wheel and sdist of every room; return the wheels."""
    with tempfile.TemporaryDirectory() as scratch:

        def build(room: str) -> None:
            run([python, "-m", "hatchling", "build", "--directory", Path(scratch) / room], source / room, release)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(build, ROOMS))
        wheels = []
        for room, directories in ROOMS.items():
            for directory in directories:
                (into / directory).mkdir(parents=True, exist_ok=True)
                for path in sorted((Path(scratch) / room).iterdir()):
                    shutil.copyfile(path, into / directory / path.name)
            wheels += sorted((into / directories[0]).glob(f"ispvm_{'server' if room == 'app' else room}-*.whl"))
    for wheel in wheels:
        version = wheel.name.split("-")[1]
        if version != release.version:
            raise BuildError(
                f"{wheel.name}: not of version {release.version}; its __init__.py must say what VERSION says"
            )
    return wheels


def pex(python: Path, wheels: Sequence[Path], release: Release, out: Path) -> None:
    """Write the agent as one executable file with the compiled libraries of both processors, for Debian 13's Python."""
    with tempfile.TemporaryDirectory() as scratch:
        pool = Path(scratch) / "wheels"
        pool.mkdir()
        for wheel in wheels:
            shutil.copyfile(wheel, pool / wheel.name)
        command: list[str | Path] = [
            python,
            "-m",
            "pex",
            "--no-pypi",
            "--pre-resolved-dists",
            pool,
            "ispvm-agent",
        ]
        for architecture in wheelhouse.ARCHITECTURES:
            target = {
                "marker_environment": wheelhouse.marker_environment(architecture),
                "compatible_tags": [str(tag) for tag in wheelhouse.tags(architecture)],
            }
            description = Path(scratch) / f"{architecture}.json"
            description.write_text(json.dumps(target))
            command += ["--complete-platform", description]
        made = Path(scratch) / "ispvm-agent.pex"
        command += ["--python-shebang", "/usr/bin/env python3", "--venv", "prepend", "--include-tools", "--no-compile",
                    "--disable-cache", "--script", "ispvm-agent", "--output-file", made]  # fmt: skip
        run(command, Path(scratch), release)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, out)
        out.chmod(0o755)


def unit(source: Path) -> str:
    """The systemd unit of the role agent, as a package ships it."""
    text = (source / "roles/agent/templates/ispvm-agent.service.j2").read_text()
    text = re.sub(r"{% if agent_ip_allow.*?{% endif %}\n", "", text, flags=re.DOTALL)
    text = text.replace("# Role agent: {{ _agent_running }}.\n", "")
    text = text.replace("{{ _agent_command }}", "/usr/bin/ispvm-agent")
    if "{{" in text or "{%" in text:
        raise BuildError(
            "roles/agent/templates/ispvm-agent.service.j2 has a variable that release/build/firstparty.py does not know"
        )
    return text


def tar(members: dict[str, tuple[bytes, int]], links: dict[str, str], epoch: int) -> bytes:
    """An uncompressed tar of a Debian package: path → content and mode; link → target. Its directories come first."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as archive:
        parents = {str(parent) for name in (*members, *links) for parent in Path(name).parents} - {"."}
        for name in [".", *sorted(parents)]:
            directory = tarfile.TarInfo("./" if name == "." else f"./{name}/")
            directory.type, directory.mode, directory.mtime = tarfile.DIRTYPE, 0o755, epoch
            archive.addfile(directory)
        for name in sorted(members):
            add(archive, f"./{name}", *members[name], epoch)
        for name in sorted(links):
            link = tarfile.TarInfo(f"./{name}")
            link.type, link.linkname, link.mode, link.mtime = tarfile.SYMTYPE, links[name], 0o777, epoch
            archive.addfile(link)
    return output.getvalue()


def deb(source: Path, release: Release, agent: Path, out: Path) -> None:
    """Write the agent's Debian package, for every processor that the one file is for.

    The parts are stored, not compressed: the agent is compressed already, and no compressor can change the bytes.
    """
    licence = (source / "LICENSES/Apache-2.0.txt").read_bytes()
    data = {
        "usr/lib/ispvm-agent/ispvm-agent.pex": (agent.read_bytes(), 0o755),
        "usr/lib/systemd/system/ispvm-agent.service": (unit(source).encode(), 0o644),
        "usr/lib/sysusers.d/ispvm-agent.conf": (b'u! ispvm-agent - "ISPVisualMonitor agent"\n', 0o644),
        "usr/share/doc/ispvm-agent/copyright": (b"Copyright 2026 The ISPVisualMonitor authors\n\n" + licence, 0o644),
    }
    size = sum(len(content) for content, _ in data.values())
    control = f"""Package: ispvm-agent
Version: {release.version}
Architecture: all
Maintainer: The ISPVisualMonitor authors <maintainers@ispvisualmonitor.invalid>
Installed-Size: {-(-size // 1024)}
Depends: python3 (>= {wheelhouse.TARGET_PYTHON}~), python3 (<< 3.14~), systemd
Section: net
Priority: optional
Description: ISPVisualMonitor agent
 Polls MikroTik routers, keeps what it read on disk, and pushes it to the appliance over HTTPS.
"""
    scripts = {
        "control": (control.encode(), 0o644),
        "postinst": (POSTINST.encode(), 0o755),
        "prerm": (PRERM.encode(), 0o755),
    }
    epoch = release.source_date_epoch
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar": tar(scripts, {}, epoch),
        "data.tar": tar(data, {"usr/bin/ispvm-agent": "../lib/ispvm-agent/venv/bin/ispvm-agent"}, epoch),
    }
    with out.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in parts.items():
            file.write(f"{name:<16}{epoch:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))


def build(python: Path, source: Path, release: Release, third_party: Sequence[Path], into: Path) -> list[Path]:
    """Build everything of ours into `into`; return our wheels.

    `python`: of an environment that `tools` made. `third_party`: the agent's wheels for both processors.
    """
    wheels = distributions(python, source, release, into)
    ours = [wheel for wheel in wheels if wheel.name.startswith(("ispvm_agent-", "ispvm_contract-"))]
    pex(python, [*third_party, *ours], release, into / PEX)
    deb(source, release, into / PEX, into / f"agent/ispvm-agent_{release.version}_all.deb")
    return wheels
