"""Static checks of a DAG folder before a deploy: finds what a module must not do while Airflow parses it.

Checks the code that runs at parse time: the top level of the DAG modules and of what they import from the release,
their entry functions, and what those call by name. Code that only a task or a driver runs is not checked.
"""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from replayctl.bundle.release import ENTRY_FUNCTIONS, Release, parse_module
from replayctl.bundle.rules import CALLS, HARMLESS, HEAVY, MEANING, READING_METHODS, TASKS, WRITING_METHODS
from replayctl.errors import UsageProblem

_ENDLESS = 1 << 30
_ALLOW = "replayctl: allow"
_MAX_TOTAL_BYTES = 50 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check; errors stop a deploy. `line` is None if it concerns a whole file or folder."""

    severity: Literal["error", "warning"]
    rule: str
    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.path}{f':{self.line}' if self.line else ''}: {self.message} ({self.rule})"


def check(release: Release, dags_dir: Path, *, artifacts_root: str) -> tuple[Finding, ...]:
    """All findings, errors first. Code must reach `artifacts_root` through the namespace only."""
    findings = [*_folder_findings(release, dags_dir), *_Code(release, artifacts_root).findings()]
    return tuple(
        sorted(findings, key=lambda finding: (finding.severity, finding.path, finding.line or 0, finding.rule))
    )


def refuse(findings: Sequence[Finding]) -> None:
    """Raises UsageProblem that lists the errors among the findings, if there are any."""
    errors = [str(finding) for finding in findings if finding.severity == "error"]
    if errors:
        raise UsageProblem(
            f"the DAG folder has {len(errors)} error{'s' if len(errors) > 1 else ''}; nothing was deployed",
            details="\n".join(errors),
            hint=f"move the code into a workload or a task, end the line with `# {_ALLOW}`, or pass --no-validate",
        )


def _folder_findings(release: Release, dags_dir: Path) -> Iterator[Finding]:
    for folder, names, _ in os.walk(dags_dir):
        for name in list(names):
            path = Path(folder) / name
            relative = path.relative_to(dags_dir).as_posix()
            if name.startswith(".") and not (path / "pyvenv.cfg").exists():
                names.remove(name)
            elif path.is_symlink():
                yield Finding("error", "link", relative, None, f"links to {os.readlink(path)}: {MEANING['link']}")
            elif (path / "pyvenv.cfg").exists():
                names.remove(name)
                yield Finding("warning", "environment-folder", relative, None, MEANING["environment-folder"])
    total = sum(len(file.content) for file in release.files)
    if total > _MAX_TOTAL_BYTES:
        yield Finding("error", "size", ".", None, f"{total} bytes in total: {MEANING['size']}")


@dataclass
class _Module:
    name: str
    package: str
    path: str
    content: bytes
    # Local name → dotted name; `.module.name` for imports from the release.
    imported: dict[str, str] = field(default_factory=dict)
    defined: dict[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef] = field(default_factory=dict)

    @functools.cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree. Most modules of a release are not loaded at parse time, and nothing asks for theirs."""
        return parse_module(self.content)

    @functools.cached_property
    def lines(self) -> list[str]:
        """Its text."""
        return self.content.decode("utf-8", "replace").splitlines()


class _Code:
    """The code of a release that runs at parse time."""

    def __init__(self, release: Release, artifacts_root: str) -> None:
        self._artifacts_root = artifacts_root.rstrip("/")
        self._entries = release.modules
        self._modules: dict[str, _Module] = {}
        for file in release.files:
            if file.path.endswith(".py"):
                path = file.path.removesuffix(".py")
                package = path.rpartition("/")[0].replace("/", ".")
                name = package if path.endswith("__init__") else path.replace("/", ".")
                self._modules[name] = _Module(name, package, file.path, file.content)
        self._findings: dict[tuple[str, int, str], Finding] = {}
        # Modules of equal content share their trees.
        self._visited: set[tuple[str, int]] = set()
        self._called: list[tuple[_Module, ast.AST]] = []
        self._loaded: set[str] = set()

    def findings(self) -> list[Finding]:
        """What the checks find in it."""
        for name in self._entries:
            module = self._load(name)
            if module is None:
                continue
            for entry in ENTRY_FUNCTIONS:
                if entry in module.defined:
                    self._note_called(module, module.defined[entry])
        while self._called:
            self._visit_function(*self._called.pop())
        return [*self._findings.values(), *self._without_entry()]

    def _without_entry(self) -> Iterator[Finding]:
        """Files that create DAGs without an entry function: written for another way of deploying."""
        for name, module in self._modules.items():
            if name in self._entries or "." in name or not name.startswith("dag_"):
                continue
            for node in _outside_functions(module.tree):
                if isinstance(node, ast.Call) and _dotted(module, node.func).rpartition(".")[2] in ("DAG", "dag"):
                    yield Finding("warning", "entry", module.path, node.lineno, MEANING["entry"])
                    break

    def _load(self, name: str) -> _Module | None:
        """A module of the release, with its top level checked; None if the release has no such module."""
        module = self._modules.get(name)
        if module is None or name in self._loaded:
            return module
        self._loaded.add(name)
        if name:
            # Importing a module runs its packages first.
            self._load(module.package if module.package != name else name.rpartition(".")[0])
        for node in _outside_functions(module.tree):
            self._note_import(module, node)
        for statement in module.tree.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                module.defined[statement.name] = statement
        for statement in module.tree.body:
            self._visit(module, statement)
        return module

    def _note_import(self, module: _Module, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                module.imported[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            base = f".{_absolute(module, node)}".rstrip(".") if node.level else node.module or ""
            for alias in node.names:
                if alias.name == "*":
                    watched = (call for calls in CALLS.values() for call in calls)
                    module.imported |= {
                        name: call for call in watched for where, _, name in [call.rpartition(".")] if where == base
                    }
                else:
                    module.imported[alias.asname or alias.name] = f"{base}.{alias.name}"

    def _visit(self, module: _Module, node: ast.AST) -> None:
        """Checks code that runs now: bodies of classes do, bodies of functions do not."""
        # Without recursion, since expressions may be nested more deeply than Python's calls.
        pending = [node]
        while pending:
            node = pending.pop()
            inside: list[ast.AST]
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                inside = [*node.args.defaults, *(default for default in node.args.kw_defaults if default)]
                inside += [] if isinstance(node, ast.Lambda) else node.decorator_list
            elif isinstance(node, ast.If) and _never_when_parsed(node.test):
                inside = [*node.orelse]
            else:
                self._look(module, node)
                inside = list(ast.iter_child_nodes(node))
            pending += reversed(inside)

    def _visit_function(self, module: _Module, node: ast.AST) -> None:
        bodies: list[ast.AST] = []
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            bodies = [] if _is_task(module, node) else [node]
        elif isinstance(node, ast.ClassDef):
            constructors = ("__init__", "__post_init__", "__new__")
            bodies = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name in constructors]
        for body in bodies:
            assert isinstance(body, (ast.FunctionDef, ast.AsyncFunctionDef))
            inner = {
                child.name: child
                for child in ast.walk(body)
                if isinstance(child, ast.FunctionDef) and child is not body
            }
            inside = replace(module, imported=dict(module.imported), defined={**module.defined, **inner})
            for child in _outside_functions(body):
                self._note_import(inside, child)
            for statement in body.body:
                self._visit(inside, statement)

    def _look(self, module: _Module, node: ast.AST) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self._look_at_import(module, node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, (ast.Attribute, ast.Name)):
            self._note_alias(module, node, node.value)
        elif isinstance(node, ast.Call):
            self._look_at_call(module, node)
        elif isinstance(node, (ast.Attribute, ast.Name)) and _dotted(module, node) == "os.environ":
            self._report(module, node, "environment", "os.environ")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            inside = f"{node.value.rstrip('/')}/".startswith(f"{self._artifacts_root}/")
            if inside and len(self._artifacts_root) > 1:
                self._report(module, node, "namespace", f"the path {node.value!r}")

    def _note_alias(self, module: _Module, node: ast.Assign | ast.AnnAssign, value: ast.expr) -> None:
        """Follows another name of an import or of a forbidden function: now = time.time, clock = time."""
        name = _dotted(module, value)
        imported = name.partition(".")[0] in {dotted.partition(".")[0] for dotted in module.imported.values()}
        if imported or any(_is_one_of(name, calls) for calls in CALLS.values()):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            module.imported |= {target.id: name for target in targets if isinstance(target, ast.Name)}

    def _look_at_import(self, module: _Module, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = _absolute(module, node)
            self._load(base)
            for alias in node.names:
                # Either a module of that package, or a name in it.
                self._load(f"{base}.{alias.name}".lstrip("."))
            return
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for name in names:
            top = name.partition(".")[0]
            if top in HEAVY:
                self._report(module, node, "heavy-import", f"import of {top}")

    def _look_at_call(self, module: _Module, node: ast.Call) -> None:
        name = _dotted(module, node.func)
        for rule, calls in CALLS.items():
            if len(node.args) + len(node.keywords) >= HARMLESS.get(name, _ENDLESS):
                continue
            if _is_one_of(name, calls) and not (rule == "read" and name.rpartition(".")[2] == "open"):
                self._report(module, node, rule, f"call of {name}")
        for keyword in node.keywords:
            # Runs for every object created without a value.
            if keyword.arg == "default_factory":
                self._look_at_call(module, ast.copy_location(ast.Call(keyword.value, [], []), keyword.value))
        self._look_at_files(module, node, name)
        if name.rpartition(".")[2] in ("DAG", "DagSpec", "dag"):
            self._look_at_dag_id(module, node)
        self._follow(module, node.func, name)

    def _look_at_files(self, module: _Module, node: ast.Call, name: str) -> None:
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        of_object = method != "" and not _is_one_of(name, CALLS["read"])
        own = any(isinstance(child, ast.Name) and child.id == "__file__" for child in ast.walk(node))
        if method == "open" or name == "open":
            if _opens_to_write(node, 0 if of_object else 1):
                self._report(module, node, "write", "open() to write")
            elif not own:
                self._report(module, node, "read", "open() to read")
        elif of_object and not name.startswith("os."):
            if method in WRITING_METHODS:
                self._report(module, node, "write", f"call of .{method}()")
            elif method in READING_METHODS and not own:
                self._report(module, node, "read", f"call of .{method}()")

    def _look_at_dag_id(self, module: _Module, node: ast.Call) -> None:
        dag_id = next(
            (keyword.value for keyword in node.keywords if keyword.arg == "dag_id"), node.args[0] if node.args else None
        )
        if isinstance(dag_id, ast.Constant) and isinstance(dag_id.value, str):
            self._report(module, node, "namespace", f"the dag_id {dag_id.value!r} (use namespace.dag_id(...))")

    def _follow(self, module: _Module, called: ast.expr, name: str) -> None:
        """Checks the called function too, if it belongs to the release."""
        if isinstance(called, ast.Name) and called.id in module.defined:
            self._note_called(module, module.defined[called.id])
        elif name.startswith("."):
            where, _, what = name[1:].rpartition(".")
            other = self._load(where)
            if other is not None and what in other.defined:
                self._note_called(other, other.defined[what])

    def _note_called(self, module: _Module, node: ast.AST) -> None:
        key = (module.path, id(node))
        if key not in self._visited:
            self._visited.add(key)
            self._called.append((module, node))

    def _report(self, module: _Module, node: ast.AST, rule: str, what: str) -> None:
        line = getattr(node, "lineno", 0)
        if _ALLOW in (module.lines[line - 1] if 0 < line <= len(module.lines) else ""):
            return
        key = (module.path, line, rule)
        self._findings.setdefault(key, Finding("error", rule, module.path, line, f"{what}: {MEANING[rule]}"))


def _absolute(module: _Module, node: ast.ImportFrom) -> str:
    """The dotted name of a relative import's base, from the release's root; empty for the root itself."""
    parts = module.package.split(".") if module.package else []
    kept = parts[: max(0, len(parts) - (node.level - 1))]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a module or function, except those inside nested functions, which have a scope of their own."""
    pending = list(ast.iter_child_nodes(node))[::-1]
    while pending:
        child = pending.pop()
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            pending += reversed(list(ast.iter_child_nodes(child)))


@functools.cache
def _is_one_of(name: str, calls: tuple[str, ...]) -> bool:
    return any(name == call or (call.endswith(".") and name.startswith(call)) for call in calls)


def _dotted(module: _Module, node: ast.expr) -> str:
    """The dotted name of an expression, with imports resolved; empty unless it consists of names and attributes."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Call):
        by_text = _dotted_by_text(module, node)
        return ".".join([by_text, *reversed(parts)]) if by_text else ""
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([module.imported.get(node.id, node.id), *reversed(parts)])


def _dotted_by_text(module: _Module, node: ast.Call) -> str:
    """The name that getattr(time, "time"), __import__("time") or import_module("time") refers to, else empty."""
    words = [
        argument.value
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
    called = node.func.id if isinstance(node.func, ast.Name) else ""
    called = module.imported.get(called, called) or _dotted(module, node.func)
    if not words or isinstance(node.func, ast.Call):
        return ""
    if called == "getattr" and isinstance(node.args[0], (ast.Name, ast.Attribute)):
        return f"{_dotted(module, node.args[0])}.{words[0]}"
    if called in ("__import__", "importlib.import_module") or _dotted(module, node.func) == "importlib.import_module":
        return words[0]
    return ""


def _is_task(module: _Module, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a call creates a task (`@task`, `@task.virtualenv(…)`) instead of running the function."""
    decorators = (decorator.func if isinstance(decorator, ast.Call) else decorator for decorator in node.decorator_list)
    return any(not TASKS.isdisjoint(_dotted(module, decorator).split(".")) for decorator in decorators)


def _opens_to_write(node: ast.Call, place: int) -> bool:
    mode = next(
        (keyword.value for keyword in node.keywords if keyword.arg == "mode"),
        node.args[place] if len(node.args) > place else None,
    )
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and bool(set(mode.value) & set("wax+"))


def _never_when_parsed(test: ast.expr) -> bool:
    if isinstance(test, ast.Compare):
        return isinstance(test.left, ast.Name) and test.left.id == "__name__" and isinstance(test.ops[0], ast.Eq)
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"
