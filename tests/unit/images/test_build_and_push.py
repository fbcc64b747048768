"""Builds and pushes by the events of an engine: steps, failures, digests, and messages of registries."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replayctl.errors import AuthFailed, OperationFailed, ReplayctlError, Unreachable, UsageProblem
from replayctl.images import build as building
from replayctl.images.build import INPUT_LABEL, BuildPlan, BuildxLog, build, find_built, plan_build
from replayctl.images.context import plan_context
from replayctl.images.engine import LocalImage, explain
from replayctl.images.listing import list_images, running_images
from replayctl.images.push import push
from replayctl.images.reference import Reference, parse_reference
from tests.reporters import RecordingReporter

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


class FakeEngine:
    """An engine with some images and a registry; builds and pushes give the events that it was told."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.events = events
        self.local: dict[str, LocalImage] = {"base:1": LocalImage("sha256:base", ("base:1",), (), 10, {})}
        self.remote: dict[str, str] = {}
        self.registry_error: ReplayctlError | None = None
        self.build_options: dict[str, Any] = {}
        self.processor = "x86_64"

    def architecture(self) -> str:
        return self.processor

    def image(self, name: str) -> LocalImage | None:
        return self.local.get(name)

    def images(self, repository: str) -> list[LocalImage]:
        return [image for name, image in self.local.items() if name.startswith(f"{repository}:")]

    def registry_digest(self, reference: Reference) -> str | None:
        if self.registry_error:
            raise self.registry_error
        return self.remote.get(str(reference))

    def build(self, context: Any, dockerfile: str, tag: str, *, base: Reference, **options: Any) -> Iterator[Any]:
        self.build_options = options
        yield from self.events
        self.local[tag] = LocalImage("sha256:new", (tag,), (), 20, options["labels"])

    def push(self, reference: Reference) -> Iterator[Any]:
        yield from self.events


_HAS_BUILDX = building._has_buildx


def executable(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)


def test_buildx_is_found_where_dockers_client_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_PLUGINS", (tmp_path / "system",))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "own"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    executable(tmp_path / "system" / "docker-buildx")
    assert not _HAS_BUILDX()  # there is no docker
    executable(tmp_path / "bin" / "docker")
    assert _HAS_BUILDX()
    (tmp_path / "system" / "docker-buildx").chmod(0o644)
    assert not _HAS_BUILDX()
    executable(tmp_path / "extra" / "docker-buildx")
    (tmp_path / "own").mkdir()
    configuration = tmp_path / "own" / "config.json"
    configuration.write_text(json.dumps({"cliPluginsExtraDirs": [str(tmp_path / "extra")]}))
    assert _HAS_BUILDX()
    configuration.write_text("{}")
    assert not _HAS_BUILDX()
    executable(tmp_path / "own" / "cli-plugins" / "docker-buildx")
    assert _HAS_BUILDX()
    configuration.write_text("[")
    with pytest.raises(OperationFailed, match=r"cannot read Docker's configuration .*config.json"):
        _HAS_BUILDX()


@pytest.fixture(autouse=True)
def no_buildx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_has_buildx", lambda: False)


@pytest.fixture
def docker_dir(tmp_path: Path) -> Path:
    (tmp_path / "x.Dockerfile").write_text("FROM base:1\nRUN make\n")
    return tmp_path


def planned(engine: FakeEngine, docker_dir: Path, **arguments: str) -> BuildPlan:
    context = plan_context(docker_dir, "x.Dockerfile")
    return plan_build(engine, context, "localhost:5000/worker", "alice", base="base:1", arguments=arguments)  # type: ignore[arg-type]


def test_a_base_may_be_pinned_by_its_digest(docker_dir: Path) -> None:
    engine = FakeEngine()
    engine.remote[f"base@{DIGEST}"] = DIGEST
    context = plan_context(docker_dir, "x.Dockerfile")
    for base in (f"base@{DIGEST}", f"base:1@{DIGEST}"):
        engine.remote[base] = DIGEST
        plan = plan_build(engine, context, "localhost:5000/worker", "alice", base=base, arguments={})  # type: ignore[arg-type]
        assert (str(plan.base), plan.base_digest) == (base, DIGEST)
    for wrong in ("base@sha256:12", "base@", "@" + DIGEST):
        with pytest.raises(UsageProblem):
            plan_build(engine, context, "localhost:5000/worker", "alice", base=wrong, arguments={})  # type: ignore[arg-type]


STEPS = (
    {"stream": "Step 1/2 : FROM base:1\n"},
    {"stream": " ---> 123\n"},
    {"stream": "Step 2/2 : RUN make\n"},
    {"stream": "cc a.c\n"},
)


def test_the_tag_is_the_owner_and_the_inputs(docker_dir: Path) -> None:
    engine = FakeEngine()
    plan = planned(engine, docker_dir)
    assert str(plan.reference) == f"localhost:5000/worker:alice-{plan.inputs[:12]}"
    assert planned(engine, docker_dir).inputs == plan.inputs
    assert planned(engine, docker_dir, JAVA="21").inputs != plan.inputs
    engine.local["base:1"] = LocalImage("sha256:newer", ("base:1",), (), 10, {})
    assert planned(engine, docker_dir).inputs != plan.inputs


def test_the_processor_is_that_of_the_engine(docker_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_DEFAULT_PLATFORM", raising=False)
    engine = FakeEngine(*STEPS)
    plan = planned(engine, docker_dir)
    engine.processor = "aarch64"
    other = planned(engine, docker_dir)
    assert (plan.platform, other.platform) == ("x86_64", "aarch64")
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/amd64")
    named = planned(engine, docker_dir)
    assert len({plan.inputs, other.inputs, named.inputs}) == 3
    build(engine, named, RecordingReporter())  # type: ignore[arg-type]
    assert engine.build_options["platform"] == "linux/amd64"


def test_a_base_is_known_by_its_digest_whether_it_was_pulled_or_not(docker_dir: Path) -> None:
    engine = FakeEngine()
    engine.local["base:1"] = LocalImage("sha256:id", ("base:1",), (f"base@{DIGEST}",), 10, {})
    pulled = planned(engine, docker_dir).inputs
    del engine.local["base:1"]
    engine.remote["base:1"] = DIGEST
    assert planned(engine, docker_dir).inputs == pulled
    engine.remote.clear()
    with pytest.raises(OperationFailed, match="base:1 does not exist in the engine or in its registry"):
        planned(engine, docker_dir)


def test_a_build_tells_its_steps_and_labels_the_image(docker_dir: Path) -> None:
    engine, reporter = FakeEngine(*STEPS), RecordingReporter()
    plan = planned(engine, docker_dir, JAVA="17")
    assert find_built(engine, plan) is None  # type: ignore[arg-type]
    assert build(engine, plan, reporter, commit="c0ffee") == "sha256:new"  # type: ignore[arg-type]
    assert reporter.messages("step") == ["step 1/2: FROM base:1", "step 2/2: RUN make"]
    assert "step 2/2: cc a.c" in reporter.messages("status")
    assert engine.build_options["buildargs"] == {"BASE": "base:1", "JAVA": "17"}
    assert engine.build_options["labels"][INPUT_LABEL] == plan.inputs
    assert engine.build_options["labels"]["org.opencontainers.image.revision"] == "c0ffee"
    assert find_built(engine, plan) == "engine"  # type: ignore[arg-type]


# What buildx 0.13 prints, of two stages at the same time.
BUILDX = """\
#0 building with "default" instance using docker driver
#1 [internal] load build definition from x.Dockerfile
#1 transferring dockerfile: 122B done
#1 DONE 0.0s
#4 [stage-1 1/3] FROM docker.io/lab/debian:bookworm
#4 CACHED
#5 [tools 2/2] RUN make tools
#5 0.259 cc tools.c
#6 [stage-1 2/3] RUN make
#6 0.260 cc a.c
#5 [tools 2/2] RUN make tools
#5 0.300 tools.c: no such header
#6 0.310 cc b.c
"""
BUILDX_FAILURE = """\
#5 ERROR: process "/bin/sh -c make tools" did not complete successfully: exit code: 2
------
 > [tools 2/2] RUN make tools:
0.259 cc tools.c
0.300 tools.c: no such header
------
ERROR: failed to solve: process "/bin/sh -c make tools" did not complete successfully: exit code: 2
"""


def test_each_step_of_buildx_is_reported_once(docker_dir: Path) -> None:
    reporter = RecordingReporter()
    log = BuildxLog(reporter)
    for line in f"{BUILDX}#9 exporting layers\n#9 DONE 0.1s\n".splitlines():
        log.take(line)
    assert reporter.messages("step") == [
        "step 1/3: FROM docker.io/lab/debian:bookworm",
        "step 2/2: RUN make tools",
        "step 2/3: RUN make",
    ]
    assert "step 2/2: tools.c: no such header" in reporter.messages("status")
    assert reporter.messages("status")[-1] == "exporting layers"


def test_a_failure_of_buildx_has_the_lines_of_the_step_that_failed(docker_dir: Path) -> None:
    log = BuildxLog(RecordingReporter())
    for line in f"{BUILDX}{BUILDX_FAILURE}".splitlines():
        log.take(line)
    error = log.failed.failure(planned(FakeEngine(), docker_dir), log.reason)
    assert "failed in step 2/2: exit code 2" in str(error)
    assert (error.details or "").splitlines() == [
        "step 2/2: RUN make tools",
        "cc tools.c",
        "tools.c: no such header",
    ]


@pytest.mark.parametrize(
    "wrapping",
    [
        "failed to solve: ",
        "rpc error: code = Unknown desc = failed to solve with frontend dockerfile.v0: "
        "failed to create LLB definition: ",
    ],
)
def test_a_dockerfile_that_buildx_cannot_parse(docker_dir: Path, wrapping: str) -> None:
    log = BuildxLog(RecordingReporter())
    log.take(f"ERROR: {wrapping}dockerfile parse error on line 1: unknown instruction: FORM")
    error = log.failed.failure(planned(FakeEngine(), docker_dir), log.reason)
    assert str(error).endswith(
        "failed before its first step: dockerfile parse error on line 1: unknown instruction: FORM"
    )


def test_an_image_in_the_registry_counts_and_a_registry_that_is_away_does_not_matter(docker_dir: Path) -> None:
    engine = FakeEngine()
    plan = planned(engine, docker_dir)
    engine.remote[str(plan.reference)] = DIGEST
    assert find_built(engine, plan) == "registry"  # type: ignore[arg-type]
    engine.registry_error = Unreachable("away")
    assert find_built(engine, plan) is None  # type: ignore[arg-type]


def test_another_image_under_the_tag_does_not_count(docker_dir: Path) -> None:
    engine = FakeEngine()
    plan = planned(engine, docker_dir)
    engine.local[str(plan.reference)] = LocalImage("sha256:x", (), (), 1, {INPUT_LABEL: "other"})
    assert find_built(engine, plan) is None  # type: ignore[arg-type]


def test_a_failing_step_is_shown_with_its_command_and_last_lines(docker_dir: Path) -> None:
    noise = [{"stream": f"line {number}\n"} for number in range(50)]
    engine = FakeEngine(*STEPS, *noise, {"error": "The command '/bin/sh -c make' returned a non-zero code: 2"})
    with pytest.raises(OperationFailed, match=r"failed in step 2/2: exit code 2$") as excinfo:
        build(engine, planned(engine, docker_dir), RecordingReporter())  # type: ignore[arg-type]
    lines = (excinfo.value.details or "").splitlines()
    assert lines[0] == "step 2/2: RUN make"
    assert lines[-1] == "line 49"
    assert len(lines) == 21


def test_lines_that_a_step_prints_in_pieces_are_whole(docker_dir: Path) -> None:
    pieces = ["first\n", "\x1b[91mls: \x1b[0m", "\x1b[91mcannot read x\n\x1b[0m", "no end"]
    events = [*({"stream": piece} for piece in pieces), {"error": "The command 'ls' returned a non-zero code: 2"}]
    engine, reporter = FakeEngine(*STEPS, *events), RecordingReporter()
    with pytest.raises(OperationFailed) as excinfo:
        build(engine, planned(engine, docker_dir), reporter)  # type: ignore[arg-type]
    assert (excinfo.value.details or "").splitlines()[2:] == ["first", "ls: cannot read x", "no end"]


def test_a_base_that_cannot_be_pulled_is_the_registrys_word(docker_dir: Path) -> None:
    engine = FakeEngine({"stream": "Step 1/2 : FROM base:1\n"}, {"error": "pull access denied for base"})
    with pytest.raises(AuthFailed, match="base:1"):
        build(engine, planned(engine, docker_dir), RecordingReporter())  # type: ignore[arg-type]


def layer(name: str, status: str, current: int = 0, total: int = 0) -> dict[str, Any]:
    return {"id": name, "status": status, "progressDetail": {"current": current, "total": total} if total else {}}


WORKER = parse_reference("localhost:5000/worker:a")
PUSH = (
    {"status": "The push refers to repository [localhost:5000/worker]"},
    layer("l1", "Preparing"),
    layer("l2", "Waiting"),
    layer("l1", "Pushing", 1_000_000, 4_000_000),
    layer("l2", "Layer already exists"),
    layer("l1", "Pushed"),
)


@pytest.mark.parametrize(
    "last",
    [
        {"aux": {"Tag": "a", "Digest": DIGEST, "Size": 1}, "progressDetail": {}},
        {"status": f"a: digest: {DIGEST} size: 528"},
    ],
    ids=["classic store", "containerd store"],
)
def test_a_push_ends_with_the_digest_that_the_registry_knows(last: dict[str, Any]) -> None:
    engine, reporter = FakeEngine(*PUSH, last), RecordingReporter()
    engine.remote[str(WORKER)] = DIGEST
    pushed = push(engine, WORKER, reporter)  # type: ignore[arg-type]
    assert pushed.reference == f"localhost:5000/worker@{DIGEST}"
    assert (pushed.layers, pushed.sent_layers) == (2, 1)
    assert "pushing localhost:5000/worker:a: 0 of 2 layers, 1.0 of 4.0 MB" in reporter.messages("status")
    assert "pushing localhost:5000/worker:a: 2 of 2 layers, 4.0 of 4.0 MB" in reporter.messages("status")


def test_a_push_that_another_one_replaced_fails() -> None:
    engine = FakeEngine(*PUSH, {"aux": {"Digest": DIGEST}})
    engine.remote[str(WORKER)] = OTHER
    with pytest.raises(OperationFailed, match=f"the registry has {OTHER} for"):
        push(engine, WORKER, RecordingReporter())  # type: ignore[arg-type]
    engine.remote.clear()
    with pytest.raises(OperationFailed, match="the registry has no image for"):
        push(engine, WORKER, RecordingReporter())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "kind", "hint"),
    [
        ("unauthorized: authentication required", AuthFailed, "docker login localhost:5000"),
        ("no basic auth credentials", AuthFailed, "docker login localhost:5000"),
        ("denied: requested access to the resource is denied", AuthFailed, "docker login localhost:5000"),
        ("http: server gave HTTP response to HTTPS client", OperationFailed, "insecure-registries"),
        ("dial tcp 127.0.0.1:5000: connect: connection refused", Unreachable, "try again"),
        ('Put "http://localhost:5000/v2/x": EOF', Unreachable, "try again"),
        ("blob upload invalid", OperationFailed, None),
    ],
)
def test_a_failure_in_the_stream_is_an_error_with_the_next_step(
    words: str, kind: type[ReplayctlError], hint: str | None
) -> None:
    engine = FakeEngine(*PUSH, {"error": words, "errorDetail": {"message": words}})
    with pytest.raises(kind) as excinfo:
        push(engine, WORKER, RecordingReporter())  # type: ignore[arg-type]
    assert hint is None or hint in (excinfo.value.hint or "")


def test_other_words_mean_nothing_special() -> None:
    assert explain("no space left on device", "x") is None


class FakeRegistry:
    def tags(self, repository: str) -> list[str]:
        return ["a", "b"]

    def digest(self, reference: Reference) -> str:
        return {"a": DIGEST, "b": OTHER}[str(reference.tag)]


@pytest.mark.parametrize(
    ("image_id", "row"),
    [
        (f"docker-pullable://localhost:5000/worker@{DIGEST}", f"localhost:5000/worker@{DIGEST}"),
        (f"localhost:5000/worker@{DIGEST}", f"localhost:5000/worker@{DIGEST}"),
        # Images that were loaded on the node.
        ("docker://sha256:1", "localhost:5000/worker:a"),
        ("sha256:1", "localhost:5000/worker:a"),
        ("", "localhost:5000/worker:a"),
    ],
)
def test_pods_are_counted_by_digest_or_tag(image_id: str, row: str) -> None:
    class Cluster:
        def get(self, path: str, what: str) -> dict[str, Any]:
            status = {
                "imageID": image_id,
                "image": "localhost:5000/worker:a",
                "state": {"running": {"startedAt": "2026-01-01"}},
            }
            return {"items": [{"status": {"containerStatuses": [status, status]}}, {"status": {}}]}

    running = running_images(Cluster(), "airflow")  # type: ignore[arg-type]
    assert running == {row: 1}
    engine = FakeEngine()
    name = "localhost:5000/worker:a"
    engine.local = {name: LocalImage("sha256:1", (name,), (f"localhost:5000/worker@{DIGEST}",), 7, {})}
    repository = parse_reference("localhost:5000/worker")
    rows = list_images(engine, None, repository, running, INPUT_LABEL)  # type: ignore[arg-type]
    assert [(row.tag, row.pods) for row in rows] == [("a", 1)]


def test_the_list_joins_engine_registry_and_pods() -> None:
    engine = FakeEngine()
    repository = parse_reference("localhost:5000/worker")
    engine.local = {
        "localhost:5000/worker:a": LocalImage(
            "sha256:1", ("localhost:5000/worker:a",), (f"localhost:5000/worker@{DIGEST}",), 7, {INPUT_LABEL: "in"}
        ),
        "localhost:5000/worker:new": LocalImage("sha256:2", ("localhost:5000/worker:new", "other:1"), (), 8, {}),
    }
    missing = "sha256:" + hashlib.sha256(b"gone").hexdigest()
    running = {f"localhost:5000/worker@{OTHER}": 2, f"localhost:5000/worker@{missing}": 1, "postgres@sha256:1": 1}
    rows = list_images(engine, FakeRegistry(), repository, running, INPUT_LABEL)  # type: ignore[arg-type]
    assert [(row.tag, row.in_engine, row.in_registry, row.pods) for row in rows] == [
        ("a", True, True, 0),
        ("b", False, True, 2),
        ("new", True, False, 0),
        ("-", False, False, 1),
    ]
    assert rows[0].inputs == "in"
    assert rows[3].digest == missing
