"""Make the mutants of a file: mutmut's operators, one change for each."""

import ast
import difflib
import hashlib
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parent.parent.parent / "mender_oneshot"


class Mutant(NamedTuple):
    """One changed file."""

    module: str
    path: str  # below mender_oneshot/
    lines: tuple[int, ...]  # of the statement that was changed; none: it runs at import
    text: str
    diff: str

    @property
    def key(self) -> str:
        """What identifies it as long as its file is the same."""
        return hashlib.sha256(f"{self.path}\n{self.text}".encode()).hexdigest()[:16]


def mutants_of(module: str, files: Iterable[Path], sample: int, seed: int) -> tuple[int, list[Mutant]]:
    """Count the mutants of a module's files, and make a sample of them; with 0, all."""
    found: list[tuple[Path, Source, int]] = []
    for path in files:
        source = Source(path)
        found += [(path, source, number) for number in range(len(source.mutations))]
    order = random.Random(f"{seed} {module}")  # noqa: S311  # no secret
    chosen = order.sample(found, sample) if 0 < sample < len(found) else found
    made: dict[str, Mutant] = {}
    for path, source, number in chosen:
        mutant = source.mutant(module, str(path.relative_to(PACKAGE)), number)
        if mutant:
            made[mutant.key] = mutant
    return len(found), list(made.values())


class Source:
    """A file, and what mutmut would change in it."""

    def __init__(self, path: Path) -> None:
        from mutmut.mutation import file_mutation

        self.code = path.read_text()
        self.tree, found, _, _ = file_mutation.create_mutations(str(path), self.code)
        self.mutations = [one for one in found if not _is_prose(self.tree.code_for_node(one.original_node))]
        self.parts = [self.tree.code_for_node(part) for part in self.tree.body]
        self.header = self.code[: len(self.code) - len("".join(self.parts)) - len(self._footer())]
        self._home: dict[int, int] = {}
        for number, part in enumerate(self.tree.body):
            self._settle(part, number)
        self._statements = _statements(self.code)

    def _footer(self) -> str:
        return "".join(self.tree.code_for_node(line) for line in self.tree.footer)

    def _settle(self, node: Any, number: int) -> None:
        self._home[id(node)] = number
        for child in node.children:
            self._settle(child, number)

    def mutant(self, module: str, path: str, number: int) -> Mutant | None:
        """Make one mutant; None if it is the same program, or none at all."""
        one = self.mutations[number]
        home = self._home[id(one.original_node)]
        old = self.parts[home]
        new = self.tree.code_for_node(self.tree.body[home].deep_replace(one.original_node, one.mutated_node))
        before, after = old.splitlines(), new.splitlines()
        text = "".join((self.header, *self.parts[:home], new, *self.parts[home + 1 :], self._footer()))
        if new == old or not _compiles(text):
            return None
        above = "".join((self.header, *self.parts[:home])).count("\n")
        changes = [
            c for c in difflib.SequenceMatcher(None, before, after, False).get_opcodes() if c[0] != "equal"
        ]
        first = above + changes[0][1] + 1
        last = max(above + changes[-1][2], first)
        diff = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
        shown = "\n".join(row for row in diff if not row.startswith("@@"))
        return Mutant(module, path, _around(self._statements, first, last), text, shown)


def _is_prose(code: str) -> bool:
    """Say whether a node is a string of several words: no test compares every letter of a sentence."""
    code = code.strip()
    return code[-1:] in ("'", '"') and code.lstrip("rbfRBF")[:1] in ("'", '"') and " " in code


def _compiles(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _statements(code: str) -> list[tuple[int, int, bool]]:
    """List first and last line of each statement, without its body, and whether it runs at import."""
    found = []

    def visit(node: ast.AST, at_import: bool) -> None:
        for child in ast.iter_child_nodes(node):
            inside = at_import and not isinstance(child, (ast.FunctionDef, ast.Lambda))
            if isinstance(child, ast.stmt):
                body = getattr(child, "body", None)
                last = body[0].lineno - 1 if isinstance(body, list) and body else child.end_lineno
                found.append((child.lineno, max(child.lineno, last or 0), at_import))
            visit(child, inside)

    visit(ast.parse(code), True)
    return found


def _around(statements: list[tuple[int, int, bool]], first: int, last: int) -> tuple[int, ...]:
    inner = [s for s in statements if s[0] <= first and last <= s[1]] or [
        s for s in statements if s[0] <= first <= s[1]
    ]
    start, end, at_import = max(inner, default=(first, last, True))
    return () if at_import else tuple(range(start, end + 1))
