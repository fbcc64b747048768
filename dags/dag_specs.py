"""DAGs as data: steps with inputs, parameters, place and resources, and the identity of each step's artifact.

Standard library only. The CLI plans and checks these, `dag_operators` turns them into Airflow operators, and
`dag_submit` gets one step as a JSON document. Identities can be computed from the release alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace

from .dag_entities import RESOURCE_TIERS, Engine, Namespace, Place, Resources
from .workload_code import code_digest, workload_code

FORCE_ALL = "all"
# A line in the documentation of each task, which a deploy checks to verify that the server shows its release.
RELEASE_LINE = "Release: "
# The image of a task's pod, if the release sets it.
IMAGE_LINE = "Image: "
_TASK_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


def _digest(document: object) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Package:
    """A stored wheel, jar or Python environment: its path on the cluster, and a digest of its content."""

    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step of an experiment: a workload with parameters, applied to the artifacts of its inputs.

    `name` is the task id. `workload` is a module of `workloads/`; a deploy fails if the release does not have it.
    `parameters` are JSON values and determine the result together with the workload's code and the inputs; do not
    include what does not affect the result (paths, cores, release). `label` is the name of the step in pages and
    tables; `overridden` are the general parameters that the data set's own have replaced, to be shown beside them.

    `engines` can compute the step; `engine` is the one that it selects, None the profile's. `implementations` maps an
    engine to the name of its implementation, if the results differ; that name becomes a parameter. `environment` is the
    Python environment of the step's process; if empty, the engine's own.

    `wheels` and `jars` are names of uploaded packages, with or without their version; the deploy resolves them to
    files, and the contents of these (`package_digests`) then affect the result as well. Jars need Spark.
    """

    name: str
    workload: str
    dataset: str
    parameters: Mapping[str, object] = field(hash=False)
    inputs: tuple[StepSpec, ...] = ()
    label: str = ""
    place: Place = "pod"
    tier: str = "default"
    overridden: Mapping[str, object] = field(default_factory=dict, hash=False)
    engines: tuple[Engine, ...] = ("embedded", "spark")
    engine: Engine | None = None
    implementations: Mapping[Engine, str] = field(default_factory=dict, hash=False)
    environment: str = ""

    wheels: tuple[str, ...] = ()
    jars: tuple[str, ...] = ()
    package_digests: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _TASK_NAME.fullmatch(self.name):
            raise ValueError(f"step name {self.name!r} is not a task id: letters, digits, '_' and '-', at most 100")
        if self.tier not in RESOURCE_TIERS:
            raise ValueError(f"step {self.name}: unknown tier {self.tier!r}; known: {', '.join(RESOURCE_TIERS)}")
        if self.jars and "embedded" in self.engines:
            raise ValueError(f"step {self.name}: jars need Spark; declare engines=('spark',)")
        _digest(self.parameters)
        try:
            workload_code(self.workload)
        except ValueError as error:
            raise ValueError(f"step {self.name}: {error}") from error

    def on(self, engine: Engine, *, override: bool = False) -> StepSpec:
        """The step, with all before it, on the engine that will compute it.

        That is the step's own engine, or else `engine`; with `override`, it is `engine` for every step that supports
        it.
        """
        step_engine = engine if override or self.engine is None else self.engine
        if step_engine not in self.engines:
            step_engine = self.engine if self.engine in self.engines else self.engines[0]
        parameters = self.parameters
        if step_engine in self.implementations:
            parameters = {**parameters, "implementation": self.implementations[step_engine]}
        inputs = tuple(parent.on(engine, override=override) for parent in self.inputs)
        return replace(self, engine=step_engine, parameters=parameters, inputs=inputs)

    def using(self, packages: Mapping[str, Package]) -> StepSpec:
        """The step, with all before it, with the digests of its wheels and jars if they are known."""
        if not packages:
            return self
        names = (name for name in (*self.wheels, *self.jars) if name in packages)
        inputs = tuple(parent.using(packages) for parent in self.inputs)
        return replace(self, package_digests=tuple(sorted(packages[name].digest for name in names)), inputs=inputs)

    @property
    def identity(self) -> str:
        """16 hex digits: hash of the workload, its code, parameters, wheels and jars, and the inputs' identities."""
        code = code_digest(self.workload)
        parts: list[object] = [self.workload, code, self.parameters, [step.identity for step in self.inputs]]
        # Steps without packages keep the identities that they have always had.
        return _digest([*parts, list(self.package_digests)] if self.package_digests else parts)

    @property
    def folder(self) -> str:
        """Path of the artifact below the namespace's base path: data set, workload and identity."""
        return f"{self.dataset}/{self.workload}/{self.identity}"


@dataclass(frozen=True, slots=True)
class DagSpec:
    """One DAG: its id on the server, its steps in an order in which inputs come first, and its MLflow experiment.

    Inputs that are not among the steps are artifacts of another DAG and must exist already. `image` is the image of its
    workers' pods, as a tag of the profile's image or as REGISTRY/NAME:TAG; if empty, the profile's. The deploy replaces
    it by its digest. `mlflow_server` is the name of one of the profile's `mlflow.servers`; if empty, the profile's own
    MLflow.
    """

    dag_id: str
    description: str
    mlflow_experiment: str
    steps: tuple[StepSpec, ...]
    tags: tuple[str, ...] = ()
    image: str = ""
    mlflow_server: str = ""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for step in self.steps:
            if step.name in seen:
                raise ValueError(f"DAG {self.dag_id}: two steps are named {step.name!r}")
            late = [parent.name for parent in step.inputs if parent in self.steps and parent.name not in seen]
            if late:
                raise ValueError(f"DAG {self.dag_id}: step {step.name!r} is listed before its input {late[0]!r}")
            seen.add(step.name)

    def on(self, engine: Engine, *, override: bool = False) -> DagSpec:
        """The DAG with every step on the engine that will compute it; see `StepSpec.on`."""
        return replace(self, steps=tuple(step.on(engine, override=override) for step in self.steps))

    def using(self, packages: Mapping[str, Package]) -> DagSpec:
        """The DAG with the contents of its steps' wheels and jars; see `StepSpec.using`."""
        return replace(self, steps=tuple(step.using(packages) for step in self.steps))

    def upstream(self, step: StepSpec) -> Iterator[StepSpec]:
        """The step's direct inputs that are steps of this DAG."""
        return (parent for parent in step.inputs if parent in self.steps)

    def forced_by(self, step: StepSpec) -> frozenset[str]:
        """Names that force this step: its own, those of all its ancestors in this DAG, and `all`."""
        names = {FORCE_ALL, step.name}
        for parent in self.upstream(step):
            names |= self.forced_by(parent)
        return frozenset(names)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a release runs: written by the deploy to `deployment.json` of the release, and read once per process.

    Paths are as the workers see them. `places` maps a step's place to the one used here, `tiers` overrides resources.
    `pool` is an Airflow pool with one slot per step that fits into the machine, of which a step on Spark takes
    `spark_slots` (None: no pool). If `tracking_uri` is None, the worker's MLFLOW_TRACKING_URI is used. `yarn_url` is
    the ResourceManager's web address, `yarn_conf` Spark's configuration for steps there. `engine` computes the steps
    that do not select one. Under the Kubernetes executor, `pods` is set, and `images` has the image with its digest for
    each `DagSpec.image`; if it has none for the empty name, the pod template's image is used. `hdfs` has the workers'
    connection to HDFS: `url`, the NameNode's web address, and `user` (None: the user of Hadoop's programs there).
    `tracking_servers` are further MLflow servers by the names that DAGs use. If an MLflow server is down, an evaluation
    fails with `tracking_required`, else its metrics stay with the artifact. `packages` are the wheels and jars by the
    names that steps use; `python` is the packed environment of steps on YARN, None for the nodes' own Python.
    """

    release: str
    profile: str
    user: str | None
    data_root: str
    artifacts_root: str
    spark_submit_files: str
    tracking_uri: str | None = None
    places: Mapping[str, Place] = field(default_factory=dict)
    tiers: Mapping[str, Resources] = field(default_factory=dict)
    spark_conf: Mapping[str, str] = field(default_factory=dict)
    pool: str | None = None
    yarn_url: str | None = None
    yarn_conf: Mapping[str, str] = field(default_factory=dict)
    engine: Engine = "spark"
    spark_slots: int = 1
    pods: bool = False
    images: Mapping[str, str] = field(default_factory=dict)
    hdfs: Mapping[str, str | None] | None = None
    tracking_servers: Mapping[str, str] = field(default_factory=dict)
    tracking_required: bool = True
    packages: Mapping[str, Package] = field(default_factory=dict)
    python: Package | None = None

    @classmethod
    def from_json(cls, text: str, *, release: str) -> Deployment:
        """The deployment described by `deployment.json`; the release's own name is not part of its content."""
        fields = json.loads(text)
        tiers = {name: Resources(**tier) for name, tier in fields.pop("tiers", {}).items()}
        packages = {name: Package(**package) for name, package in fields.pop("packages", {}).items()}
        python = Package(**fields.pop("python")) if fields.get("python") else fields.pop("python", None)
        return cls(release=release, tiers=tiers, packages=packages, python=python, **fields)

    def to_json(self) -> str:
        """The input of `from_json` without the release, whose name is a hash that includes this text."""
        fields = asdict(self)
        del fields["release"]
        return json.dumps(fields, indent=2, sort_keys=True) + "\n"

    @property
    def namespace(self) -> Namespace:
        """The namespace that owns the release."""
        return Namespace(self.user)

    @property
    def base_path(self) -> str:
        """The base path of this namespace's artifacts."""
        return f"{self.artifacts_root.rstrip('/')}/{self.namespace.directory}"

    def place(self, step: StepSpec) -> Place:
        """The place of the step under this profile."""
        return self.places.get(step.place, step.place)

    def resources(self, step: StepSpec) -> Resources:
        """The resources of the step under this profile."""
        return self.tier(step.tier)

    def tier(self, name: str) -> Resources:
        """The resources of a tier under this profile."""
        return self.tiers.get(name, RESOURCE_TIERS[name])

    def image(self, dag: DagSpec) -> str | None:
        """The image of the DAG's pods, by digest; None for that of the pod template. ValueError for an unknown one."""
        if dag.image and dag.image not in self.images:
            raise ValueError(f"DAG {dag.dag_id}: image {dag.image!r} has no digest in {self.release}")
        return self.images.get(dag.image)

    def artifact_path(self, step: StepSpec) -> str:
        """The address of the step's artifact."""
        return f"{self.base_path}/{step.folder}"

    def tracking_server(self, dag: DagSpec) -> str | None:
        """The address of the DAG's MLflow server, or else of the profile's. Raises ValueError for an unknown name."""
        if not dag.mlflow_server:
            return self.tracking_uri
        if dag.mlflow_server not in self.tracking_servers:
            known = ", ".join(sorted(self.tracking_servers)) or "none"
            raise ValueError(
                f"DAG {dag.dag_id}: unknown MLflow server {dag.mlflow_server!r}; known: {known} (mlflow.servers)"
            )
        return self.tracking_servers[dag.mlflow_server]

    def step_document(self, dag: DagSpec, step: StepSpec) -> dict[str, object]:
        """What `dag_submit` needs to know about a step, as JSON values; the run and `force` are added at run time."""
        return {
            "package": self.release,
            "workload": step.workload,
            "step": step.name,
            "label": step.label,
            "dataset": step.dataset,
            "identity": step.identity,
            "code": dict(workload_code(step.workload)),
            "parameters": dict(step.parameters),
            "output": self.artifact_path(step),
            "inputs": [
                {
                    "step": parent.name,
                    "workload": parent.workload,
                    "label": parent.label,
                    "identity": parent.identity,
                    "parameters": dict(parent.parameters),
                    "path": self.artifact_path(parent),
                }
                for parent in step.inputs
            ],
            "hdfs": dict(self.hdfs or {}) if self.artifacts_root.startswith("hdfs://") else None,
            "data_root": self.data_root,
            "mlflow_experiment": dag.mlflow_experiment,
            "mlflow_server": dag.mlflow_server,
            "tracking_uri": self.tracking_server(dag),
            "tracking_required": self.tracking_required,
            "profile": self.profile,
            "user": self.user,
            "engine": step.engine or self.engine,
            "cores": self.resources(step).cores,
            "memory_gib": self.resources(step).memory_gib,
        }
