"""Digests of the workloads' code, which are part of the identities of their artifacts.

A workload's code is its module and everything that it imports from the release, including imports inside functions; the
standard library and installed packages do not count. Comments, docstrings, layout, the order of imports and the version
of Python do not change a digest. Only the release's own files are read.

If a change does not affect the results, the module declares that in a constant, from the new digest to the old one:

    SAME_RESULTS = {"0f1e2d3c4b5a6978": "8796a5b4c3d2e1f0"}

The entry applies to exactly that code; it has no effect after the next change.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

WORKLOADS_PACKAGE = "workloads"
SAME_RESULTS = "SAME_RESULTS"
_DIGITS = 16
# Positions are attributes, not fields; these fields do not affect what the code does.
_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_RELEASE = Path(__file__).parent


def workload_code(workload: str, folder: Path = _RELEASE) -> Mapping[str, str]:
    """Module of the release (`workloads/split.py`) → digest, for a workload and everything that it imports there.

    Raises ValueError if the release has no such workload; the message lists those that it has.
    """
    known = workload_names(folder)
    if workload not in known:
        raise ValueError(
            f"unknown workload {workload!r}: no {WORKLOADS_PACKAGE}/{workload}.py defines run(context, output); "
            f"known: {', '.join(known)}"
        )
    return _closure(workload, folder)


@functools.cache
def code_digest(workload: str, folder: Path = _RELEASE) -> str:
    """One digest over `workload_code`."""
    return _hash(sorted(workload_code(workload, folder).items()))


@functools.cache
def workload_names(folder: Path = _RELEASE) -> tuple[str, ...]:
    """The modules of `workloads/` that define `run` at their top level, sorted."""
    return tuple(
        path.stem
        for path in sorted((folder / WORKLOADS_PACKAGE).glob("*.py"))  # the release's own; replayctl: allow
        if path.stem != "runner" and any(_defines_run(node) for node in _effective(_module(folder, path).body))
    )


def _defines_run(node: object) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "run"


@functools.cache
def _closure(workload: str, folder: Path) -> Mapping[str, str]:
    pending = [folder / WORKLOADS_PACKAGE / f"{workload}.py"]
    digests: dict[str, str] = {}
    while pending:
        path = pending.pop()
        name = path.relative_to(folder).as_posix()
        if name in digests:
            continue
        digests[name], imported = _module_code(folder, path)
        pending += imported
    return dict(sorted(digests.items()))


@functools.cache
def _module(folder: Path, path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=path.relative_to(folder).as_posix())  # replayctl: allow


@functools.cache
def _module_code(folder: Path, path: Path) -> tuple[str, tuple[Path, ...]]:
    """The digest of a module, and the files of the release that it imports."""
    tree = _module(folder, path)
    reading = _Reading()
    digest = _hash(reading.canonical([node for node in _effective(tree.body) if not _is_declaration(node)]))
    same = _declared_same(tree, path)
    seen = {digest}
    while digest in same and same[digest] not in seen:
        digest = same[digest]
        seen.add(digest)
    return digest, _imported(folder, path, reading.imports)


def _is_declaration(node: object) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id == SAME_RESULTS for target in targets)


def _declared_same(tree: ast.Module, path: Path) -> dict[str, str]:
    for node in tree.body:
        if _is_declaration(node) and isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            try:
                declared = ast.literal_eval(node.value)
                return {str(new): str(old) for new, old in declared.items()}
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{path.name}: {SAME_RESULTS} is not a dictionary of literals") from error
    return {}


def _imported(folder: Path, path: Path, imports: Sequence[ast.ImportFrom]) -> tuple[Path, ...]:
    """The files of the release that a module with these imports loads, and the packages that contain them."""
    package = path.relative_to(folder).parent.parts
    names: set[tuple[str, ...]] = {package[:depth] for depth in range(len(package) + 1)}
    for node in imports:
        if 0 < node.level <= len(package) + 1:
            base = (*package[: len(package) + 1 - node.level], *(node.module or "").split("."))
            base = tuple(part for part in base if part)
            names |= {base[:depth] for depth in range(len(base) + 1)}
            names |= {(*base, alias.name) for alias in node.names}
    files = (file for name in names for file in (folder.joinpath(*name, "__init__.py"), _file(folder, name)) if file)
    return tuple(sorted(file for file in files if file.is_file()))  # replayctl: allow


def _file(folder: Path, name: Sequence[str]) -> Path | None:
    return folder.joinpath(*name[:-1], f"{name[-1]}.py") if name else None


def _effective(nodes: Iterable[object]) -> Iterator[object]:
    """Statements without those that have no effect: docstrings, `pass`, and code for type checkers only."""
    for node in nodes:
        if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            continue
        if isinstance(node, ast.If) and _is_for_type_checkers(node):
            yield from _effective(node.orelse)
        else:
            yield node


def _is_for_type_checkers(node: ast.If) -> bool:
    test = node.test.attr if isinstance(node.test, ast.Attribute) else getattr(node.test, "id", None)
    return test == "TYPE_CHECKING"


class _Reading:
    """One pass over a module's syntax tree, the slowest part of loading a release."""

    def __init__(self) -> None:
        self.imports: list[ast.ImportFrom] = []

    def canonical(self, value: object) -> object:
        """A syntax tree as JSON values, the same for every version of Python that can parse it."""
        if isinstance(value, str):
            return ascii(value)
        if isinstance(value, list):
            # A list has either statements or none.
            statements = value and isinstance(value[0], ast.stmt)
            return [self.canonical(item) for item in (_sorted_imports(_effective(value)) if statements else value)]
        if isinstance(value, ast.Constant):
            return [type(value.value).__name__, ascii(value.value)]
        if isinstance(value, ast.JoinedStr):
            return ["JoinedStr", self.canonical(list(_merged(value.values)))]
        return self._node(value) if isinstance(value, ast.AST) else ascii(value)

    def _node(self, node: ast.AST) -> list[object]:
        if isinstance(node, ast.ImportFrom):
            self.imports.append(node)
        document: list[object] = [type(node).__name__]
        for name in node._fields:
            if name in _IGNORED_FIELDS or (item := getattr(node, name, None)) is None:
                continue
            value = self.canonical(item)
            # Only list fields become an empty list.
            if value != []:
                document.append([name, value])
        return document


def _merged(parts: Sequence[ast.expr]) -> Iterator[ast.expr]:
    """The parts of an f-string, with adjacent texts joined: versions of Python split them differently."""
    text = ""
    for part in parts:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            text += part.value
            continue
        if text:
            yield ast.Constant(text)
        text = ""
        yield part
    if text:
        yield ast.Constant(text)


def _sorted_imports(nodes: Iterable[object]) -> Iterator[object]:
    """Adjacent imports one by one and sorted, because their form is only layout."""
    imports: list[ast.stmt] = []
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports += _single_imports(node)
            continue
        yield from sorted(imports, key=ast.dump)
        imports = []
        yield node
    yield from sorted(imports, key=ast.dump)


def _single_imports(node: ast.Import | ast.ImportFrom) -> Iterator[ast.stmt]:
    for alias in node.names:
        if isinstance(node, ast.Import):
            yield ast.Import([alias])
        else:
            yield ast.ImportFrom(node.module, [alias], node.level)


def _hash(document: object) -> str:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_DIGITS]
