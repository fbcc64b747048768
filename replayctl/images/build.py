"""One build: planned from its inputs, skipped when an image of the same inputs exists, reported step by step."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replayctl import process
from replayctl.console.events import Reporter
from replayctl.errors import OperationFailed, ReplayctlError
from replayctl.images.context import BuildContext
from replayctl.images.engine import Engine, explain
from replayctl.images.reference import Reference, parse_pinned, parse_reference

INPUT_LABEL = "replayctl.input-digest"
_REVISION_LABEL = "org.opencontainers.image.revision"
_TAIL_LINES = 20
_STEP = re.compile(r"Step (?P<number>\d+)/(?P<total>\d+) : (?P<command>.*)", re.DOTALL)
# As `docker buildx build --progress plain` prints its lines.
_BUILDX_LINE = re.compile(r"#(?P<number>\d+) (?P<rest>.*)")
_BUILDX_STEP = re.compile(r"\[(?P<stage>[^\]]*?)(?P<number>\d+)/(?P<total>\d+)\] (?P<command>.*)")
_BUILDX_OUTPUT = re.compile(r"\d+\.\d+ (?P<text>.*)")
_BUILDX_ERROR = re.compile(r"ERROR: (?P<reason>.*?(?:exit code: (?P<code>\d+))?)$")
# What the layers of BuildKit put in front of a reason.
_WRAPPINGS = re.compile(
    r"((rpc error: code = \w+ desc|failed to solve( with frontend [^:]*)?|failed to create LLB definition)( =|:) )+"
)
_STATUS = re.compile(r"The command '.*' returned a non-zero code: (?P<code>\d+)", re.DOTALL)
# Where Docker's client looks for its plugins, beside the user's own folders.
_PLUGINS = tuple(
    Path(folder, "docker", "cli-plugins")
    for folder in ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")
)
# The classic builder has stderr in red.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Lines of the classic builder itself between those of a step.
_HOUSEKEEPING = ("--->", "Removing intermediate container")


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What a build is made from; `inputs` is the sha256 of all of it, in hex."""

    context: BuildContext
    reference: Reference
    base: Reference
    base_digest: str
    arguments: Mapping[str, str]
    network: str | None
    platform: str
    inputs: str

    def labels(self, commit: str | None) -> dict[str, str]:
        """The labels of the image."""
        return {INPUT_LABEL: self.inputs, **({_REVISION_LABEL: commit} if commit else {})}


def plan_build(
    engine: Engine,
    context: BuildContext,
    repository: str,
    owner: str,
    *,
    base: str,
    arguments: Mapping[str, str],
    network: str | None = None,
) -> BuildPlan:
    """The plan; its tag is `<owner>-<first 12 digits of the inputs>`.

    Raises UsageProblem for invalid names, Unreachable when neither engine nor registry can resolve the base image.
    """
    base_reference = parse_pinned(base)
    base_digest = _digest_of(engine, base_reference)
    # Docker's own client goes by the variable, too.
    architecture = os.environ.get("DOCKER_DEFAULT_PLATFORM") or engine.architecture()
    parts = {
        "context": context.digest(),
        "dockerfile": context.dockerfile,
        "base": base_digest,
        "arguments": dict(sorted(arguments.items())),
        "platform": architecture,
    }
    inputs = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    reference = parse_reference(f"{repository}:{owner}-{inputs[:12]}")
    return BuildPlan(context, reference, base_reference, base_digest, arguments, network, architecture, inputs)


def find_built(engine: Engine, plan: BuildPlan) -> str | None:
    """Where an image of these inputs is already: "engine", "registry" or None."""
    image = engine.image(str(plan.reference))
    if image is not None and image.labels.get(INPUT_LABEL) == plan.inputs:
        return "engine"
    if plan.reference.registry is None:
        return None
    try:
        return "registry" if engine.registry_digest(plan.reference) else None
    except ReplayctlError:
        # An unavailable registry must not prevent a build.
        return None


def build(engine: Engine, plan: BuildPlan, reporter: Reporter, *, commit: str | None = None) -> str:
    """Builds the image and returns its id; raises OperationFailed with the failed step, its command and last lines."""
    if _has_buildx():
        _build_by_buildx(plan, reporter, plan.labels(commit))
    else:
        _build_by_engine(engine, plan, reporter, plan.labels(commit))
    image = engine.image(str(plan.reference))
    if image is None or image.labels.get(INPUT_LABEL) != plan.inputs:
        raise OperationFailed(
            f"the build succeeded, but {plan.reference} is not the image of these inputs",
            hint=f"run `docker image inspect {plan.reference}`",
        )
    return image.id


def _digest_of(engine: Engine, base: Reference) -> str:
    """The digest of the base image: the engine's own image of that name, else the registry's."""
    image = engine.image(str(base))
    if image is not None:
        return image.digest_in(base.name) or image.id
    digest = engine.registry_digest(base)
    if digest is None:
        raise OperationFailed(f"base image {base} does not exist in the engine or in its registry")
    return digest


class _Steps:
    """Reports steps, and keeps the last lines of the current one."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.current = ""
        self.command = ""
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._rest = ""

    def begin(self, number: str, total: str, command: str) -> None:
        self.current = f"step {number}/{total}"
        self.command = " ".join(command.split())
        self.tail.clear()
        self._rest = ""
        command_line = self.command if len(self.command) <= 100 else f"{self.command[:99]}…"
        self._reporter.step(f"{self.current}: {command_line}")

    def output(self, text: str) -> None:
        """Takes a piece of what a step prints, which need not end where a line does."""
        *lines, self._rest = (self._rest + _COLOURS.sub("", text)).split("\n")
        for line in lines:
            self.line(line)

    def line(self, text: str) -> None:
        if text.strip() and not text.strip().startswith(_HOUSEKEEPING):
            self.tail.append(text.rstrip())
            self._reporter.status(f"{self.current}: {text.strip()}")

    def failure(self, plan: BuildPlan, reason: str) -> ReplayctlError:
        self.output("\n")
        registry = explain(reason, str(plan.base), plan.base.registry)
        if registry is not None and not self.tail:
            return registry
        details = [f"{self.current}: {self.command}"] if self.command else []
        where = f"in {self.current}" if self.current else "before its first step"
        return OperationFailed(
            f"the build of {plan.reference} failed {where}: {reason}",
            hint=f"correct {plan.context.folder / plan.context.dockerfile} or the step's inputs, then build again",
            details="\n".join([*details, *self.tail]),
        )


def _build_by_engine(engine: Engine, plan: BuildPlan, reporter: Reporter, labels: Mapping[str, str]) -> None:
    steps = _Steps(reporter)
    with plan.context.tar() as archive:
        events = engine.build(
            archive,
            plan.context.dockerfile,
            str(plan.reference),
            base=plan.base,
            buildargs={"BASE": str(plan.base), **plan.arguments},
            labels=dict(labels),
            network_mode=plan.network,
            platform=os.environ.get("DOCKER_DEFAULT_PLATFORM"),
        )
        for event in events:
            _take(event, steps, plan)


def _take(event: Mapping[str, Any], steps: _Steps, plan: BuildPlan) -> None:
    if "error" in event:
        reason = str(event["error"]).strip()
        status = _STATUS.fullmatch(reason)
        raise steps.failure(plan, f"exit code {status['code']}" if status else reason)
    match = _STEP.match(str(event.get("stream") or ""))
    if match:
        steps.begin(match["number"], match["total"], match["command"])
    elif "stream" in event:
        steps.output(str(event["stream"]))
    else:
        steps.line(str(event.get("status") or ""))


def _has_buildx() -> bool:
    """Whether Docker's client would find buildx: by its file, since a start of it takes as long as a small build."""
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    folders = [*_extra_folders(own / "config.json"), own / "cli-plugins", *_PLUGINS]
    return shutil.which("docker") is not None and any(
        os.access(folder / "docker-buildx", os.X_OK) for folder in folders
    )


def _extra_folders(path: Path) -> list[Path]:
    """The folders of plugins in the client's configuration."""
    try:
        folders = json.loads(path.read_text(encoding="utf-8")).get("cliPluginsExtraDirs") or ()
        return [Path(folder) for folder in folders]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise OperationFailed(f"cannot read Docker's configuration {path}: {error}") from error


def _build_by_buildx(plan: BuildPlan, reporter: Reporter, labels: Mapping[str, str]) -> None:
    log = BuildxLog(reporter)
    with tempfile.TemporaryDirectory(prefix="replayctl-build-") as folder:
        with plan.context.tar() as archive, tarfile.open(fileobj=archive) as tar:
            tar.extractall(folder, filter="data")
        argv = ["docker", "buildx", "build", "--load", "--progress", "plain", "--tag", str(plan.reference)]
        argv += ["--file", str(Path(folder) / plan.context.dockerfile), *_options(plan, labels), folder]
        done = process.run(argv, on_line=log.take, check=False)
    if done.returncode != 0:
        raise log.failed.failure(plan, log.reason or f"docker buildx ended with status {done.returncode}")


class BuildxLog:
    """Reads the lines of `docker buildx build --progress plain`; steps run in parallel and have numbers."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._steps: dict[str, _Steps] = {}
        self.failed = _Steps(reporter)
        self.reason = ""

    def take(self, text: str) -> None:
        """Reports one line. At the end `failed` is the step that failed, and `reason` says why."""
        match = _BUILDX_LINE.match(text)
        if match is None:
            # The summary of a failure repeats what the step has printed.
            error = _BUILDX_ERROR.match(text)
            if error:
                self.reason = f"exit code {error['code']}" if error["code"] else _WRAPPINGS.sub("", error["reason"], 1)
            return
        step = self._steps.setdefault(match["number"], _Steps(self._reporter))
        rest = match["rest"]
        begin, output = _BUILDX_STEP.match(rest), _BUILDX_OUTPUT.match(rest)
        if begin:
            # Printed again whenever another step has printed something.
            if not step.current:
                step.begin(begin["number"], begin["total"], begin["command"])
        elif rest.startswith("ERROR"):
            self.failed = step
        elif output:
            step.line(output["text"])
        elif not step.current and not rest.startswith(("DONE", "CACHED", "[")):
            self._reporter.status(rest)


def _options(plan: BuildPlan, labels: Mapping[str, str]) -> Iterator[str]:
    for name, value in {"BASE": str(plan.base), **plan.arguments}.items():
        yield from ("--build-arg", f"{name}={value}")
    for name, value in labels.items():
        yield from ("--label", f"{name}={value}")
    if plan.network:
        yield from ("--network", plan.network)
