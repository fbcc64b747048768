"""Digests of the workloads' code, which belong to the identity of what they make.

A workload's code is its module and all that this imports of the release, function-level imports included; the
standard library and installed packages are not looked at. Comments, docstrings, layout, the order of imports and the
version of Python do not change a digest. Reads the release's own files and nothing else.

A module whose results are the same as before a change says so in a constant of its own, from the new digest to the old:

    SAME_RESULTS = {"0f1e2d3c4b5a6978": "8796a5b4c3d2e1f0"}

The entry is true of exactly that code: with the next change it does not count any more.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

WORKLOADS_PACKAGE = "workloads"
SAME_RESULTS = "SAME_RESULTS"
_DIGITS = 16
# Positions are no attributes of these fields; the rest says nothing of what the code does.
_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_RELEASE = Path(__file__).parent


def workload_code(workload: str, folder: Path = _RELEASE) -> Mapping[str, str]:
    """Module of the release (`workloads/split.py`) → digest, for a workload and all that it imports there.

    Raises ValueError when the release has no such workload, with the names of those it has.
    """
    known = workload_names(folder)
    if workload not in known:
        raise ValueError(
            f"unknown workload {workload!r}: no {WORKLOADS_PACKAGE}/{workload}.py defines run(context, output); "
            f"known: {', '.join(known)}"
        )
    return _closure(workload, folder)


def code_digest(workload: str, folder: Path = _RELEASE) -> str:
    """One digest over `workload_code`."""
    return _hash(sorted(workload_code(workload, folder).items()))


@functools.cache
def workload_names(folder: Path = _RELEASE) -> tuple[str, ...]:
    """The modules of `workloads/` that define `run` at their top level, sorted."""
    return tuple(
        path.stem
        for path in sorted((folder / WORKLOADS_PACKAGE).glob("*.py"))  # the release's own; replayctl: allow
        if path.stem != "runner" and any(_defines_run(node) for node in _module(folder, path).body)
    )


def _defines_run(node: ast.stmt) -> bool:
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
        digests[name] = _module_digest(folder, path)
        pending += _imported(folder, path)
    return dict(sorted(digests.items()))


@functools.cache
def _module(folder: Path, path: Path) -> ast.Module:
    tree = ast.parse(path.read_bytes(), filename=path.relative_to(folder).as_posix())  # replayctl: allow
    return _Simplified().visit(tree)  # type: ignore[no-any-return]


@functools.cache
def _module_digest(folder: Path, path: Path) -> str:
    tree = _module(folder, path)
    digest = _hash(_canonical([node for node in tree.body if not _is_declaration(node)]))
    same = _declared_same(tree, path)
    seen = {digest}
    while digest in same and same[digest] not in seen:
        digest = same[digest]
        seen.add(digest)
    return digest


def _is_declaration(node: ast.stmt) -> bool:
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


@functools.cache
def _imported(folder: Path, path: Path) -> tuple[Path, ...]:
    """The files of the release that a module imports, and the packages that they lie in."""
    package = path.relative_to(folder).parent.parts
    names: set[tuple[str, ...]] = {package[:depth] for depth in range(len(package) + 1)}
    for node in ast.walk(_module(folder, path)):
        if isinstance(node, ast.ImportFrom) and 0 < node.level <= len(package) + 1:
            base = (*package[: len(package) + 1 - node.level], *(node.module or "").split("."))
            base = tuple(part for part in base if part)
            names |= {base[:depth] for depth in range(len(base) + 1)}
            names |= {(*base, alias.name) for alias in node.names}
    files = (file for name in names for file in (folder.joinpath(*name, "__init__.py"), _file(folder, name)) if file)
    return tuple(sorted(file for file in files if file.is_file()))  # replayctl: allow


def _file(folder: Path, name: Sequence[str]) -> Path | None:
    return folder.joinpath(*name[:-1], f"{name[-1]}.py") if name else None


class _Simplified(ast.NodeTransformer):
    """Without what does nothing: docstrings, `pass`, and what is only there for type checkers."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        test = node.test.attr if isinstance(node.test, ast.Attribute) else getattr(node.test, "id", None)
        if test != "TYPE_CHECKING":
            return self.generic_visit(node)
        return [statement for branch in node.orelse for statement in _listed(self.visit(branch))]

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        return None


def _listed(result: ast.stmt | list[ast.stmt] | None) -> list[ast.stmt]:
    return result if isinstance(result, list) else [] if result is None else [result]


def _canonical(value: object) -> object:
    """A syntax tree as JSON values that are the same for every version of Python that can parse it."""
    if isinstance(value, ast.Constant):
        return [type(value.value).__name__, ascii(value.value)]
    if isinstance(value, ast.JoinedStr):
        return ["JoinedStr", _canonical(list(_merged(value.values)))]
    if isinstance(value, ast.AST):
        fields = ((name, item) for name, item in ast.iter_fields(value) if name not in _IGNORED_FIELDS)
        return [type(value).__name__, *([name, _canonical(item)] for name, item in fields if item not in (None, []))]
    if isinstance(value, list):
        return [_canonical(item) for item in _sorted_imports(value)]
    return ascii(value)


def _merged(parts: Sequence[ast.expr]) -> Iterator[ast.expr]:
    """The parts of an f-string, neighbouring texts as one: versions of Python cut them differently."""
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


def _sorted_imports(nodes: Sequence[object]) -> Iterator[object]:
    """Neighbouring imports one by one and in order: how they are written is layout."""
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
