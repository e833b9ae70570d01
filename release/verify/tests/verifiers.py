"""Runs a case through both verifiers and compares what they say."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from attacks import Case, Lab

from release.verify import verify

SHELL = Path(verify.__file__).with_name("verify.sh")
Main = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Answer:
    """What a verifier said: exit code, the code of the refusal, the whole report, and the state file it left."""

    exit: int
    code: str
    report: str
    state: str

    def same(self, other: Answer) -> bool:
        """Whether two verifiers agree: to the letter on a good release, on the code of a refusal."""
        if self.exit == 0 == other.exit:
            return (self.report, self.state) == (other.report, other.state)
        return (self.exit, self.code) == (other.exit, other.code)


def answer(exit_code: int, output: str, state: Path) -> Answer:
    """Read a report; the time of a recorded state is left out."""
    code = re.search(r"^(?:REFUSED|UNDECIDED)  ([a-z-]+)", output, re.MULTILINE)
    left = state.read_text(errors="replace") if state.exists() else ""
    report = re.sub(r"by (?:verify\.py|[a-z-]+)$", "by TOOL", output, flags=re.MULTILINE)
    return Answer(exit_code, code[1] if code else "", report, re.sub(r"(seen=|stale )20\S*", r"\1", left))


class Prepared:
    """A case's damaged copy on the disk."""

    def __init__(self, lab: Lab, case: Case, home: Path) -> None:
        """Make the copy and damage it."""
        self.case, self.path = case, home / "a release"
        home.mkdir(parents=True)
        shutil.copytree(lab.bases[case.base], self.path)
        case.change(self.path)
        printed = home / "a release.fingerprint"
        fingerprint = printed.read_text() if printed.exists() else lab.fingerprint
        self.options = [*case.options, *(["--fingerprint", fingerprint] if case.key or printed.exists() else [])]

    def arguments(self, who: str) -> tuple[list[str], Path]:
        """The command line for one verifier, and its own copy of the state file."""
        given, state = self.path.with_name("a release.state"), self.path.with_name(f"state of {who}")
        state.unlink(missing_ok=True)
        if given.exists():
            shutil.copy(given, state)
        return [str(state) if option == "STATE" else option for option in self.options] + [str(self.path)], state

    def python(self, main: Main = verify.main) -> Answer:
        """Ask verify.py, in this process."""
        arguments, state = self.arguments("python")
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                code = main(arguments)
            except SystemExit as error:
                code = int(error.code or 0)
        return answer(code, said.getvalue(), state)

    def shell(self, script: Path = SHELL, *more: str) -> Answer:
        """Ask verify.sh."""
        arguments, state = self.arguments(f"shell {len(more)} {script.name}")
        done = subprocess.run(
            ["/bin/dash", script, *more, *arguments], capture_output=True, text=True, errors="replace", timeout=60
        )
        return answer(done.returncode, done.stdout + done.stderr, state)


def prepare(lab: Lab, cases: Sequence[Case], home: Path) -> list[Prepared]:
    """Make the copies of all cases."""
    return [Prepared(lab, case, home / str(number)) for number, case in enumerate(cases)]


def both(prepared: Sequence[Prepared]) -> list[tuple[Case, Answer, Answer]]:
    """Ask both verifiers about every case; the shells run in parallel."""
    with ThreadPoolExecutor(4) as pool:
        shells = pool.map(lambda each: each.shell(), prepared)
        pythons = [each.python() for each in prepared]
        return [(each.case, python, shell) for each, python, shell in zip(prepared, pythons, shells, strict=True)]


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A directory in memory if there is one: thousands of small files come and go."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="ispvm-matrix-")
