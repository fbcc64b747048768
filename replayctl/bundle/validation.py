"""Static checks of a DAG folder before anything leaves the machine: what parsing would do that parsing must not do.

Looked at is the code that runs when Airflow parses: the top level of the DAG modules and of what they import from the
release, their entry functions, and what those call by name. Code that only a task or a driver runs is not looked at.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from replayctl.bundle.release import ENTRY_FUNCTIONS, Release
from replayctl.errors import UsageProblem

_ALLOW = "replayctl: allow"
_MAX_TOTAL_BYTES = 50 * 1024 * 1024

# By the dotted name of what is called; a name that ends in a dot stands for all below it.
_CALLS: dict[str, tuple[str, ...]] = {
    "random": ("uuid.uuid1", "uuid.uuid4", "random.", "secrets.", "os.urandom", "numpy.random."),
    "clock": (
        "datetime.datetime.now",
        "datetime.datetime.utcnow",
        "datetime.datetime.today",
        "datetime.date.today",
        "time.time",
        "time.time_ns",
        "time.localtime",
        "time.sleep",
        "pendulum.now",
        "pendulum.today",
        "airflow.utils.timezone.utcnow",
        "airflow.sdk.timezone.utcnow",
    ),
    "environment": ("os.getenv", "os.putenv", "os.environ."),
    "write": (
        "os.mkdir",
        "os.makedirs",
        "os.remove",
        "os.rename",
        "shutil.copy",
        "shutil.copy2",
        "shutil.copytree",
        "shutil.move",
        "shutil.rmtree",
        "pickle.dump",
        "tempfile.",
    ),
    "program": ("subprocess.", "os.system", "os.popen"),
    "network": (
        "urllib.request.",
        "socket.",
        "http.client.",
        "requests.",
        "httpx.",
        "aiohttp.",
        "urllib3.",
        "boto3.",
        "paramiko.",
        "fabric.",
        "psycopg2.",
    ),
    "database": (
        "airflow.models.Variable.",
        "airflow.sdk.Variable.",
        "airflow.models.Connection.",
        "airflow.sdk.Connection.",
        "airflow.hooks.base.BaseHook.",
        "airflow.sdk.BaseHook.",
        "airflow.sdk.bases.hook.BaseHook.",
    ),
}
# What of the above is harmless: seeded, and so the same at each parse.
_HARMLESS = frozenset({"random.Random", "numpy.random.default_rng", "numpy.random.RandomState"})
_TASKS = frozenset({"task", "setup", "teardown"})
_WRITING_METHODS = frozenset({"write_text", "write_bytes", "unlink", "touch", "mkdir", "rmdir"})
_HEAVY = frozenset(
    {"pyspark", "replay", "pandas", "numpy", "scipy", "sklearn", "torch", "lightgbm", "xgboost", "catboost"}
    | {"lightautoml", "sparklightautoml", "tensorflow", "mlflow", "matplotlib"}
)
_MEANING = {
    "random": "gives another value at each parse, so Airflow sees a new DAG each time",
    "clock": "gives another value at each parse, so Airflow sees a new DAG each time",
    "environment": "the DAG processor's environment is not yours",
    "write": "parsing must not write: it runs every few seconds, in several processes",
    "program": "parsing must not start programs",
    "network": "parsing must not wait for the network",
    "database": "asks Airflow's database at each parse",
    "heavy-import": "takes seconds at each parse, and the DAG processor may not have it",
    "namespace": "bypasses the namespace: colleagues' deploys would collide with it",
    "entry": "it defines neither dag_specs nor build_dags, so Airflow gets no DAG of it",
    "link": "a link to a folder is not deployed, and a loop of links hides everybody's DAGs",
    "environment-folder": "a virtual environment is not deployed",
    "size": "too much for a release",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found; errors stop a deploy. `line` is None for what concerns a whole file or folder."""

    severity: Literal["error", "warning"]
    rule: str
    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.path}{f':{self.line}' if self.line else ''}: {self.message} ({self.rule})"


def check(release: Release, dags_dir: Path, *, artifacts_root: str) -> tuple[Finding, ...]:
    """All findings, errors first. `artifacts_root` is the folder that only the namespace may lead into."""
    found = [*_folder_findings(release, dags_dir), *_Code(release, artifacts_root).findings()]
    return tuple(sorted(found, key=lambda each: (each.severity, each.path, each.line or 0, each.rule)))


def refuse(findings: Sequence[Finding]) -> None:
    """Raises UsageProblem with all errors among the findings, if there are any."""
    errors = [str(finding) for finding in findings if finding.severity == "error"]
    if errors:
        raise UsageProblem(
            f"the DAG folder has {len(errors)} fault{'s' if len(errors) > 1 else ''}; nothing was deployed",
            details="\n".join(errors),
            hint=f"move it into a workload or a task; or end the line with `# {_ALLOW}`; or say --no-validate",
        )


def _folder_findings(release: Release, dags_dir: Path) -> Iterator[Finding]:
    for folder, names, _ in os.walk(dags_dir):
        for name in list(names):
            path = Path(folder) / name
            shown = path.relative_to(dags_dir).as_posix()
            if name.startswith(".") and not (path / "pyvenv.cfg").exists():
                names.remove(name)
            elif path.is_symlink():
                yield Finding("error", "link", shown, None, f"leads to {os.readlink(path)}: {_MEANING['link']}")
            elif (path / "pyvenv.cfg").exists():
                names.remove(name)
                yield Finding("warning", "environment-folder", shown, None, _MEANING["environment-folder"])
    total = sum(len(file.content) for file in release.files)
    if total > _MAX_TOTAL_BYTES:
        yield Finding("error", "size", ".", None, f"{total} bytes in all: {_MEANING['size']}")


@dataclass
class _Module:
    name: str
    package: str
    path: str
    tree: ast.Module
    lines: list[str]
    # Name here → dotted name, `.module.name` for what comes from the release itself.
    imported: dict[str, str] = field(default_factory=dict)
    defined: dict[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef] = field(default_factory=dict)


class _Code:
    """The code of a release that parsing runs."""

    def __init__(self, release: Release, artifacts_root: str) -> None:
        self._artifacts_root = artifacts_root.rstrip("/")
        self._entries = release.modules
        self._modules: dict[str, _Module] = {}
        for file in release.files:
            if file.path.endswith(".py"):
                path = file.path.removesuffix(".py")
                package = path.rpartition("/")[0].replace("/", ".")
                name = package if path.endswith("__init__") else path.replace("/", ".")
                lines = file.content.decode("utf-8", "replace").splitlines()
                self._modules[name] = _Module(name, package, file.path, ast.parse(file.content), lines)
        self._found: dict[tuple[str, int, str], Finding] = {}
        self._visited: set[int] = set()
        self._loaded: set[str] = set()

    def findings(self) -> list[Finding]:
        """What is wrong with it."""
        for name in self._entries:
            module = self._load(name)
            if module is None:
                continue
            for entry in ENTRY_FUNCTIONS:
                if entry in module.defined:
                    self._visit_function(module, module.defined[entry])
        return [*self._found.values(), *self._without_entry()]

    def _without_entry(self) -> Iterator[Finding]:
        """Files that look like DAG modules and give no DAG: written for another way of deploying."""
        for name, module in self._modules.items():
            if name in self._entries or "." in name or not name.startswith("dag_"):
                continue
            for node in _outside_functions(module.tree):
                if isinstance(node, ast.Call) and _dotted(module, node.func).rpartition(".")[2] in ("DAG", "dag"):
                    yield Finding("warning", "entry", module.path, node.lineno, _MEANING["entry"])
                    break

    def _load(self, name: str) -> _Module | None:
        """A module of the release, its top level looked at; None for what is none."""
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
                module.imported[alias.asname or alias.name] = f"{base}.{alias.name}"

    def _visit(self, module: _Module, node: ast.AST) -> None:
        """Looks at code that runs now: bodies of functions do not, those of classes do."""
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            inside = [*node.args.defaults, *(each for each in node.args.kw_defaults if each)]
            for each in [*inside, *([] if isinstance(node, ast.Lambda) else node.decorator_list)]:
                self._visit(module, each)
            return
        if isinstance(node, ast.If) and _never_when_parsed(node.test):
            for other in node.orelse:
                self._visit(module, other)
            return
        self._look(module, node)
        for child in ast.iter_child_nodes(node):
            self._visit(module, child)

    def _visit_function(self, module: _Module, node: ast.AST) -> None:
        if id(node) in self._visited:
            return
        self._visited.add(id(node))
        bodies: list[ast.AST] = []
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            bodies = [] if _is_task(module, node) else [node]
        elif isinstance(node, ast.ClassDef):
            made = ("__init__", "__post_init__", "__new__")
            bodies = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name in made]
        for body in bodies:
            assert isinstance(body, (ast.FunctionDef, ast.AsyncFunctionDef))
            inner = {
                each.name: each for each in ast.walk(body) if isinstance(each, ast.FunctionDef) and each is not body
            }
            inside = replace(module, imported=dict(module.imported), defined={**module.defined, **inner})
            for each in _outside_functions(body):
                self._note_import(inside, each)
            for statement in body.body:
                self._visit(inside, statement)

    def _look(self, module: _Module, node: ast.AST) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self._look_at_import(module, node)
        elif isinstance(node, ast.Call):
            self._look_at_call(module, node)
        elif isinstance(node, (ast.Attribute, ast.Name)) and _dotted(module, node) == "os.environ":
            self._report(module, node, "environment", "os.environ")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            inside = f"{node.value.rstrip('/')}/".startswith(f"{self._artifacts_root}/")
            if inside and len(self._artifacts_root) > 1:
                self._report(module, node, "namespace", f"the path {node.value!r}")

    def _look_at_import(self, module: _Module, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = _absolute(module, node)
            self._load(base)
            for alias in node.names:
                # Each may be a module of that package, or a name in it.
                self._load(f"{base}.{alias.name}".lstrip("."))
            return
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for name in names:
            top = name.partition(".")[0]
            if top in _HEAVY:
                self._report(module, node, "heavy-import", f"import of {top}")

    def _look_at_call(self, module: _Module, node: ast.Call) -> None:
        name = _dotted(module, node.func)
        for rule, calls in _CALLS.items():
            if name in _HARMLESS and (node.args or node.keywords):
                continue
            if any(name == call or (call.endswith(".") and name.startswith(call)) for call in calls):
                self._report(module, node, rule, f"call of {name}")
        method = isinstance(node.func, ast.Attribute) and node.func.attr == "open"
        if (name == "open" or method) and _opens_to_write(node, 0 if method else 1):
            self._report(module, node, "write", "open() to write")
        if isinstance(node.func, ast.Attribute) and node.func.attr in _WRITING_METHODS and not name.startswith("os."):
            self._report(module, node, "write", f"call of .{node.func.attr}()")
        if name.rpartition(".")[2] in ("DAG", "DagSpec", "dag"):
            self._look_at_dag_id(module, node)
        self._follow(module, node.func, name)

    def _look_at_dag_id(self, module: _Module, node: ast.Call) -> None:
        given = next(
            (each.value for each in node.keywords if each.arg == "dag_id"), node.args[0] if node.args else None
        )
        if isinstance(given, ast.Constant) and isinstance(given.value, str):
            self._report(module, node, "namespace", f"the dag_id {given.value!r} (namespace.dag_id(...) makes one)")

    def _follow(self, module: _Module, called: ast.expr, name: str) -> None:
        """Looks into what is called, if it is the release's own."""
        if isinstance(called, ast.Name) and called.id in module.defined:
            self._visit_function(module, module.defined[called.id])
        elif name.startswith("."):
            where, _, what = name[1:].rpartition(".")
            other = self._load(where)
            if other is not None and what in other.defined:
                self._visit_function(other, other.defined[what])

    def _report(self, module: _Module, node: ast.AST, rule: str, what: str) -> None:
        line = getattr(node, "lineno", 0)
        if _ALLOW in (module.lines[line - 1] if 0 < line <= len(module.lines) else ""):
            return
        key = (module.path, line, rule)
        self._found.setdefault(key, Finding("error", rule, module.path, line, f"{what}: {_MEANING[rule]}"))


def _absolute(module: _Module, node: ast.ImportFrom) -> str:
    """The dotted name, from the release's root, that a relative import begins with; empty for the root itself."""
    parts = module.package.split(".") if module.package else []
    kept = parts[: max(0, len(parts) - (node.level - 1))]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """All that lies in a module or function but not in the functions within it, whose names are their own."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        yield child
        yield from _outside_functions(child)


def _dotted(module: _Module, node: ast.expr) -> str:
    """The dotted name of an expression, imports resolved; empty for anything else than names and attributes."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([module.imported.get(node.id, node.id), *reversed(parts)])


def _is_task(module: _Module, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether calling the function makes a task of it (`@task`, `@task.virtualenv(…)`) instead of running it."""
    decorators = (each.func if isinstance(each, ast.Call) else each for each in node.decorator_list)
    return any(not _TASKS.isdisjoint(_dotted(module, each).split(".")) for each in decorators)


def _opens_to_write(node: ast.Call, place: int) -> bool:
    mode = next(
        (each.value for each in node.keywords if each.arg == "mode"),
        node.args[place] if len(node.args) > place else None,
    )
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and bool(set(mode.value) & set("wax+"))


def _never_when_parsed(test: ast.expr) -> bool:
    words = ast.unparse(test)
    return words in ("TYPE_CHECKING", "typing.TYPE_CHECKING") or words.startswith("__name__ ==")
