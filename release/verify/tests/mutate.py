"""Mutation of the verifiers' own checks: each is taken out or turned around, and the attack matrix must notice.

    python release/verify/tests/mutate.py [--every N] [--only python|shell]     exit 1 when a mutant survives

A mutant of verify.py is one change of its syntax tree: a condition that is never true, is the other way round, lacks
one part, or is off by one. A mutant of verify.sh is one `refuse` or `return` that does nothing, or one pattern that
never matches. What changes nothing that can be seen is listed in EQUIVALENT with the reason.
"""

from __future__ import annotations

import argparse
import ast
import copy
import re
import shutil
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOM = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOM.parents[1]), str(ROOM / "tests")]

import arithmetic  # noqa: E402 # the path is set above, so that this runs as a script
from attacks import Lab  # noqa: E402
from verifiers import Answer, Prepared, prepare, scratch  # noqa: E402

SOURCES = {"python": ROOM / "verify.py", "shell": ROOM / "verify.sh"}
# Functions that check nothing, or that only the demonstration uses.
PASSED_OVER = {"demo", "_rewrite", "_flip", "_link", "say", "main", "sha256", "text_of", "triple"}
# Functions whose mutants the arithmetic alone must notice.
ARITHMETIC = ("_ed_", "ed25519", "_p_", "ecdsa_p256", "_der_pair")
EQUIVALENT: dict[str, str] = {
    r"ecdsa_p256: if not .*: (without|off by one in) 0 < r < P_N": "x mod n is never such an r",
    r'\[ -f "\$name" \] \|\| refuse bad-attestation': "what comes next refuses with the same code, and names no file",
}


@dataclass(frozen=True)
class Mutant:
    """One changed verifier."""

    language: str
    what: str
    source: str
    code: str  # the code of the refusal that was touched, if one was: its cases are asked first


def _conditions(test: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Every variant of a condition."""
    yield "never", ast.Constant(False)
    yield "not", ast.UnaryOp(ast.Not(), test)
    for node in ast.walk(test):
        if isinstance(node, ast.BoolOp):
            for index in range(len(node.values)):
                changed = copy.deepcopy(test)
                twin = next(n for n in ast.walk(changed) if ast.dump(n) == ast.dump(node))
                assert isinstance(twin, ast.BoolOp)
                del twin.values[index]
                yield f"without {ast.unparse(node.values[index])}", changed
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            changed = copy.deepcopy(test)
            twin_compare = next(n for n in ast.walk(changed) if ast.dump(n) == ast.dump(node))
            assert isinstance(twin_compare, ast.Compare)
            other = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}[type(node.ops[0])]
            twin_compare.ops[0] = other()
            yield f"off by one in {ast.unparse(node)}", changed


def python_mutants() -> Iterator[Mutant]:
    """Mutants of verify.py."""
    tree = ast.parse(SOURCES["python"].read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name not in PASSED_OVER]
    for function in functions:
        for node in ast.walk(function):
            if not isinstance(node, ast.If):
                continue
            found = re.search(r"refuse\('([a-z-]+)'", ast.unparse(node.body[0]))
            original = node.test
            for what, test in _conditions(original):
                node.test = test
                name = f"{function.name}: if {ast.unparse(original)}: {what}"
                yield Mutant("python", name, ast.unparse(ast.fix_missing_locations(tree)), found[1] if found else "")
            node.test = original
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.BoolOp | ast.Compare):
                value = node.value
                for what, changed in _conditions(value):
                    node.value = ast.Constant(True) if what == "never" else changed
                    name = f"{function.name}: return {ast.unparse(value)}: {'always' if what == 'never' else what}"
                    yield Mutant("python", name, ast.unparse(ast.fix_missing_locations(tree)), "")
                node.value = value


def shell_mutants() -> Iterator[Mutant]:
    """Mutants of verify.sh."""
    text = SOURCES["shell"].read_text()
    start = text.index("tmp=$(mktemp -d)\n")
    for pattern, replacement in (
        (r"(?<![a-z])refuse (?=[a-z])", ": "), (r"\|\| return( 1)?(?=$|;)", "|| true"), (r"\*\) return 1", "*) true"),
        (r"(?<=path )~ /[^ ]*/(?= |\))", "~ /\\001/"), (r"(?<=\$0 )!~ /[^ ]+ ?[^ ]*/", "~ /\\001/"),
        (r"(?<=substr\(\$0, 1, 64\) )!~ /\^\[0-9a-f\]\+\$/", "~ /\\001/"), (r"!= \"  \"", '== "\\001"'),
        (r"path \"\" <= last", 'path "" < last'), (r"NR != ends", "0"), (r"!NR \|\|", "0 ||"),
        (r"-ge \"\$last\"", '-gt "$last"'),
        (r"-ge \"\$attestations\"", '-gt "$attestations"'), (r"then mark=1", "then mark="),
        (r"\[Q-Za-f\]\*\) mark=1", "*) mark="), (r"-perm /6000", "-perm /0000"),
        (r"late=1; fi", "late=; fi"), (r'!= "\$limit" \]', '= "$limit" ]'), (r"-k 2,2n", "-k 2,2"),
        (r"! -type d", "-type l"),
    ):  # fmt: skip
        for found in re.finditer(pattern, text, re.MULTILINE):
            if found.start() > start and found[0] != replacement:
                line = text.count("\n", 0, found.start()) + 1
                code = re.search(r"\brefuse ([a-z-]+)", text[found.start() :])  # this one, or the next: it is near
                name = f"line {line}: {text.splitlines()[line - 1].strip()[:100]}: {found[0]} -> {replacement}"
                changed = text[: found.start()] + replacement + text[found.end() :]
                yield Mutant("shell", name, changed, code[1] if code else "")


Question = tuple[Prepared, tuple[str, ...]]  # a case, and further options


class Judge:
    """The matrix, prepared once, with the answers of the verifiers as they are."""

    def __init__(self, home: Path) -> None:
        """Prepares all cases below `home` and asks both verifiers once."""
        self.home = home
        lab = Lab(home / "lab")
        self.cases = prepare(lab, [*lab.good(), *lab.unusable(), *lab.cases()], home / "cases")
        self.answers = {case: case.python() for case in self.cases}
        self.shells: dict[Question, Answer] = {}
        # only verify.sh can be told what to use; the walk-through asks all of these on a Debian 13 host
        self.tools: list[Question] = [
            (case, ("--with", tool))
            for case in self.cases
            if case.case.name in ("flip SHA256SUMS", "flip install")
            for tool in ("ssh-keygen", "sqv", "gpgv")
            if shutil.which(tool)
        ]

    def expected(self, language: str, question: Question) -> Answer:
        """What the verifier as it is says."""
        case, more = question
        if language == "python":
            return self.answers[case]
        if question not in self.shells:
            self.shells[question] = case.shell(SOURCES["shell"], *more)
        return self.shells[question]

    def order(self, mutant: Mutant) -> list[Question]:
        """The cases, those first that the touched check is there for, then one of each kind, then other tools."""
        answers = self.answers  # the shell gives the same codes
        seen: set[str] = set()
        first: list[Prepared] = []
        for case in self.cases:
            if answers[case].code not in seen or answers[case].code == mutant.code != "":
                first.append(case)
                seen.add(answers[case].code)
        first.sort(key=lambda case: answers[case].code != mutant.code)
        rest: list[Question] = [(case, ()) for case in self.cases if case not in set(first)]
        return [*((case, ()) for case in first), *(self.tools if mutant.language == "shell" else []), *rest]

    def killed(self, mutant: Mutant) -> str:
        """The name of the first case that notices, or nothing."""
        if mutant.language == "python":
            module = types.ModuleType("mutant")
            module.__dict__["__file__"] = str(SOURCES["python"])
            try:
                exec(compile(mutant.source, "mutant", "exec"), module.__dict__)
                arithmetic.check(module)
            except Exception as error:
                return f"arithmetic: {type(error).__name__}"
        else:
            script = self.home / "mutant.sh"
            script.write_text(mutant.source)
        for case, more in [] if mutant.what.startswith(ARITHMETIC) else self.order(mutant):
            expected = self.expected(mutant.language, (case, more))
            try:
                said = case.python(module.main) if mutant.language == "python" else case.shell(script, *more)
            except Exception as error:
                return f"{case.case.name}: {type(error).__name__}"
            if not said.same(expected):
                return case.case.name
        return ""


def survivors(home: Path, every: int = 1, only: str = "", say: bool = False, like: str = "") -> tuple[int, list[str]]:
    """Try every Nth mutant; how many were tried, and those that nothing noticed."""
    judge = Judge(home)
    chosen: Sequence[Mutant] = [
        mutant
        for mutant in [*python_mutants(), *shell_mutants()]
        if mutant.language.startswith(only)
        and re.search(like, mutant.what)
        and not any(re.search(pattern, mutant.what) for pattern in EQUIVALENT)
    ][::every]
    left = []
    for mutant in chosen:
        killer = judge.killed(mutant)
        if not killer:
            left.append(f"{mutant.language}: {mutant.what}")
        if say and not killer:
            print(f"SURVIVED  {left[-1]}", flush=True)
    return len(chosen), left


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", choices=["python", "shell"], default="")
    options = parser.parse_args()
    with scratch() as home:
        tried, left = survivors(Path(home), options.every, options.only, say=True)
    print(f"{tried} mutants, {len(left)} survived")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
