"""The only module that creates Airflow objects: a DAG of operators from a `DagSpec`, for a `Deployment`."""

from __future__ import annotations

import base64
import datetime
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from airflow.exceptions import AirflowException
from airflow.sdk import DAG, BaseOperator, Param

from .artifacts import Artifact
from .dag_entities import Engine, Namespace, artifact_tag
from .dag_jvm import is_light, jvm_conf
from .dag_packages import package_paths, python_conf, with_jars
from .dag_pages import describe
from .dag_process import StepProcess, StepProcessError, python_of
from .dag_specs import RELEASE_LINE, DagSpec, Deployment, StepSpec
from .evaluations import has_unrecorded_runs
from .raw_files import changed_data
from .release_package import import_from
from .reuse import origin_of, parameters_text, read_manifest, reused_text, warnings_of, why_computed
from .run_notes import NOTE, RunNotes
from .step_inputs import missing_inputs

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from .dag_spark import LocalSparkSubmitHook
    from .dag_yarn import YarnSparkSubmitHook

_START_DATE = datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)
_DRIVER_SHARE = 0.7


def encoded(document: dict[str, Any]) -> str:
    """The document as the single argument of `dag_submit.py`.

    Only letters and digits, because YARN changes double braces and `<CPS>` in the commands that it runs, and JSON has
    braces.
    """
    return base64.urlsafe_b64encode(json.dumps(document).encode("ascii")).decode("ascii")


class WorkloadOperator(BaseOperator):
    """Computes one step's artifact, unless it is complete: in a process of its own, or with spark-submit.

    Spark's provider takes longer to import than a small step to compute, so it is imported only where Spark is used.

    `step_document` comes from `Deployment.step_document`; `module` is the DAG module that declares the step;
    `identities` are those of all steps of the DAG. If the run's parameter `force` has a name in `forced_by`, the step
    is computed again, but only once in that run: a retry does not compute it twice.
    """

    # No field of a step is a template: braces in a parameter are data.
    template_fields = ()

    def __init__(
        self,
        *,
        module: str,
        step_document: dict[str, Any],
        identities: Mapping[str, str],
        forced_by: frozenset[str],
        cores: int,
        application: str,
        py_files: str,
        application_name: str,
        environment: str = "",
        conf: Mapping[str, str] | None = None,
        driver_memory: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.py_files = py_files
        self.application_name = application_name
        self.conf = dict(conf or {})
        self.driver_memory = driver_memory
        self.module = module
        self.step_document = step_document
        # Airflow's graph shows it below the task's name.
        self.custom_operator_name = f"{step_document['engine']} engine"
        self.identities = identities
        self.forced_by = forced_by
        self.cores = cores
        self.environment = environment
        self._process = StepProcess()
        self._hook: LocalSparkSubmitHook | None = None
        self._acting: WorkloadOperator | None = None
        self._ended = False

    def execute(self, context: Context) -> None:
        """Computes the artifact with the code of the release that this run continues with; see `run_notes`."""
        dag_id, dag = context["dag_run"].dag_id, self.get_dag()
        tasks = set(self.identities) if dag is None else set(dag.task_ids)
        notes = RunNotes.read(context["ti"], context["dag_run"], tasks)
        own = str(self.step_document["package"])
        release = notes.release(own)
        operator: WorkloadOperator | None = self
        engine = context["params"].get("engine") or None
        if engine and release == own:
            operator = _operator_of(own, self.module, dag_id, self.task_id, engine)
        elif release != own:
            self.log.info("%s is published by now, but this run started with %s and continues with it", own, release)
            try:
                operator = _operator_of(release, self.module, dag_id, self.task_id, engine)
            except (ImportError, OSError) as error:
                self.log.warning("cannot load %s (%s): continuing with %s", release, error, own)
        if operator is None:
            self.log.info("%s has no task %s: nothing to do for this run", release, self.task_id)
            return
        self._acting = operator
        if self._ended:
            raise AirflowException("the task was ended")
        operator.make(context, notes)

    def make(self, context: Context, notes: RunNotes) -> None:
        """Skips the step, or submits it and checks that the artifact is complete; AirflowException if it is not."""
        artifact = Artifact(self.step_document["output"], self.step_document["hdfs"])
        instance, run_id = context["ti"], context["run_id"]
        forced = bool(self.forced_by.intersection(context["params"].get("force") or ()))
        parameters = self.step_document["parameters"]
        words = {"parameters": parameters_text(parameters)}
        changes, expected = "", {}
        if manifest := artifact.find_manifest():
            done = self._ended_note(notes, manifest, run_id, **words)
            if not forced or done["origin"]["run_id"] == run_id:
                forced, changes = False, changed_data(artifact, self.step_document)
                # Computed again, it fails if the files have other rows.
                expected = {"force": True, "expected_checksum": (manifest.get("results") or {}).get("checksum")}
            if not forced and not changes:
                self.log.info("%s: %s", reused_text(parameters, done["origin"]), artifact)
                instance.xcom_push(NOTE, done)
                if has_unrecorded_runs(artifact, self.step_document):
                    self._compute(context, artifact, {})
                else:
                    self._mark_as_used(context, artifact, done)
                return
        if trouble := missing_inputs(self.step_document, self.task_id, self.identities, notes):
            raise AirflowException(trouble)
        why = "forced" if forced else changes or why_computed(artifact, self.step_document)
        values = f" ({words['parameters']})" if words["parameters"] else ""
        self.log.info("computing %s%s%s", self.task_id, values, f": {why}" if why else "")
        instance.xcom_push(NOTE, self._note(notes, outcome="computing", why=why, **words))
        self._compute(context, artifact, {"force": True} if forced else expected)
        done = self._ended_note(notes, artifact.manifest(), run_id, why=why, **words)
        instance.xcom_push(NOTE, done)
        if done["outcome"] == "reused":
            self._mark_as_used(context, artifact, done)

    def _mark_as_used(self, context: Context, artifact: Artifact, done: Mapping[str, Any]) -> None:
        """If the artifact is a recorded evaluation, says in MLflow that this run has ended with it."""
        from .workloads.context import StepError
        from .workloads.recording import mark_as_used

        try:
            warning = mark_as_used(artifact, {**self.step_document, "run": self._run_of(context)})
        except StepError as error:
            raise AirflowException(str(error)) from error
        if warning:
            self.log.warning("%s", warning)
            context["ti"].xcom_push(NOTE, {**done, "warnings": [*done["warnings"], warning]})

    def _ended_note(self, notes: RunNotes, manifest: Mapping[str, Any], run_id: str, **words: Any) -> dict[str, Any]:
        origin = origin_of(manifest)
        # Even if this task has computed it: another run may have been first.
        outcome = "computed" if origin["run_id"] == run_id else "reused"
        return self._note(notes, outcome=outcome, origin=origin, warnings=warnings_of(manifest), **words)

    def _note(self, notes: RunNotes, **result: Any) -> dict[str, Any]:
        return notes.note(self.task_id, str(self.step_document["package"]), self.step_document, **result)

    def _compute(self, context: Context, artifact: Artifact, options: Mapping[str, Any]) -> None:
        document = {
            **self.step_document,
            "force": False,
            **options,
            "run": self._run_of(context),
            "supervisor_pid": self.supervisor_pid(),
        }
        self.log.info("the step: %s", json.dumps(document))
        self.submit(context, encoded(document))
        if not artifact.is_whole():
            raise AirflowException(f"the step succeeded, but {artifact} is incomplete: {artifact.what_is_missing()}")

    def _run_of(self, context: Context) -> dict[str, Any]:
        return {
            "dag_id": context["dag_run"].dag_id,
            "run_id": context["run_id"],
            "task_id": self.task_id,
            "map_index": context["ti"].map_index,
            "try_number": context["ti"].try_number,
        }

    def submit(self, context: Context, document: str) -> None:
        """Runs the step's process, or Spark's driver, to its end; raises an error if it fails."""
        try:
            if self.step_document["engine"] == "embedded":
                argv = [python_of(self.environment or "embedded", os.environ), self.application]
                self._process.run([*argv, document], zip_files=self.py_files.split(","), on_line=self.log.info)
                return
            python_of(self.environment or "spark", os.environ)
        except StepProcessError as error:
            # The message says all: Airflow would print the traceback of its cause, too.
            raise AirflowException(str(error)) from None
        self._hook = self.local_hook(document)
        self._hook.submit(self.application)

    def on_kill(self) -> None:
        """Ends the running process or driver, or prevents its start."""
        self._ended = True
        if self._acting is not None:
            self._acting.end()

    def end(self) -> None:
        """Ends the step's process or the driver."""
        self._ended = True
        self._process.end()
        if self._hook is not None:
            self._hook.on_kill()

    def supervisor_pid(self) -> int | None:
        """The process that the driver has to end with, if both run on this machine."""
        return os.getpid()

    def local_hook(self, document: str) -> LocalSparkSubmitHook:
        """The hook that runs spark-submit on this worker."""
        from .dag_spark import LocalSparkSubmitHook

        step = self.step_document
        results = (read_manifest(entry["path"], step["hdfs"]).get("results") or {} for entry in step["inputs"])
        return LocalSparkSubmitHook(
            cores=self.cores,
            conf={**jvm_conf(os.environ, light=is_light(step, list(results))), **self.conf},
            py_files=self.py_files,
            driver_memory=self.driver_memory,
            name=self.application_name,
            application_args=[document],
            # Spark's tasks share the cores already: where a native BLAS is installed, its threads would only wait.
            env_vars={"OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1"), **self.spark_environ()},
        )

    def spark_environ(self) -> dict[str, str]:
        """Further variables of Spark's environment: on HDFS, it acts as the user that also reads the result."""
        user = (self.step_document["hdfs"] or {}).get("user")
        return {"HADOOP_USER_NAME": user} if user else {}


class YarnWorkloadOperator(WorkloadOperator):
    """The same on YARN: the driver is an application there, with tags for the task that it belongs to.

    A try follows the application that an earlier one has left. A task that is cleared, marked as failed, timed out or
    terminated ends its application.
    """

    def __init__(self, *, url: str, user: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.url = url
        self.user = user
        self.custom_operator_name += " on YARN"
        self._yarn: YarnSparkSubmitHook | None = None

    def submit(self, context: Context, document: str) -> None:
        """Follows the application if there is one, or submits one, and waits for its end."""
        from .dag_yarn import YarnSparkSubmitHook

        dag_id, run_id, instance = context["dag_run"].dag_id, context["run_id"], context["ti"]
        tags = Namespace(self.user).task_tags(dag_id, run_id, self.task_id, instance.map_index)
        artifact = artifact_tag(str(self.step_document["identity"]))
        self._yarn = YarnSparkSubmitHook(
            url=self.url,
            instance_tag=tags[-1],
            artifact_tag=artifact,
            conf={**self.conf, "spark.yarn.tags": ",".join((*tags, artifact))},
            py_files=self.py_files,
            name=self.application_name,
            application_args=[document],
            env_vars=self.spark_environ(),
        )
        if self._ended:
            raise AirflowException("the task was ended")
        self._yarn.run(self.application)

    def supervisor_pid(self) -> int | None:
        """None: YARN ends the driver."""
        return None

    def end(self) -> None:
        """Ends the application with its task, or prevents the submission of one."""
        self._ended = True
        if self._yarn is not None:
            self._yarn.end()


def _operator_of(
    release: str, module: str, dag_id: str, task_id: str, engine: Engine | None
) -> WorkloadOperator | None:
    """The operator of a task as a release declares it, on `engine` if that is set; None if there is no such task."""
    package = import_from(release, "release_package")
    deployment = package.load_deployment()
    for declared in package.load_specs(module, deployment) if package.has_module(module) else ():
        spec = declared.on(engine, override=True) if engine else declared
        for step in spec.steps if spec.dag_id == dag_id else ():
            if step.name == task_id:
                operators = import_from(release, "dag_operators")
                return cast("WorkloadOperator", operators.make_operator(spec, step, deployment, module))
    return None


def make_operator(dag: DagSpec, step: StepSpec, deployment: Deployment, module: str) -> WorkloadOperator:
    """The operator of one step. Raises ValueError for a place that this release does not support."""
    engine = step.engine or deployment.engine
    place = deployment.place(step) if engine == "spark" else "pod"
    if place == "yarn" and deployment.yarn_url is None:
        raise ValueError(f"step {step.name}: place 'yarn' is not available under profile {deployment.profile!r}")
    resources = deployment.resources(step)
    memory = f"{max(1, int(resources.memory_gib * _DRIVER_SHARE))}g"
    files = f"{deployment.spark_submit_files.rstrip('/')}/{deployment.namespace.directory}/{deployment.release}"
    common: dict[str, Any] = {
        "task_id": step.name,
        "module": module,
        "step_document": deployment.step_document(dag, step),
        "identities": {other.name: other.identity for other in dag.steps},
        "forced_by": dag.forced_by(step),
        "cores": resources.cores,
        "environment": step.environment,
        "application": f"{files}/dag_submit.py",
        "py_files": ",".join((f"{files}/{deployment.release}.zip", *package_paths(step.wheels, step, deployment))),
        "application_name": f"{dag.dag_id}.{step.name}",
        "doc_md": describe(dag, step, deployment),
        # The same for all tasks, so that the scheduler orders them by the age of their runs.
        "weight_rule": "absolute",
        **({"pool": deployment.pool} if deployment.pool else {}),
        "pool_slots": deployment.spark_slots if deployment.pool and engine == "spark" else 1,
    }
    if deployment.pods:
        from .dag_pods import executor_config

        size = resources if place == "pod" else deployment.tier("submit")
        common["executor_config"] = executor_config(size, deployment.image(dag))
    if place == "pod":
        # Spark's default is 200, and each partition is a task: too many for one machine.
        partitions = dict.fromkeys(
            ("spark.sql.shuffle.partitions", "spark.default.parallelism"), str(3 * resources.cores)
        )
        conf = {**partitions, **deployment.spark_conf}
        return WorkloadOperator(driver_memory=memory, conf=with_jars(conf, step, deployment), **common)
    # As configuration, which the profile's own can override; options of spark-submit could not be overridden. The
    # driver's Python gets the rest of the tier's memory, and retries are up to Airflow.
    conf = {
        "spark.driver.memory": memory,
        "spark.driver.memoryOverhead": f"{max(1, resources.memory_gib - int(resources.memory_gib * _DRIVER_SHARE))}g",
        "spark.driver.cores": str(resources.cores),
        "spark.yarn.maxAppAttempts": "1",
        **python_conf(deployment),
        **deployment.yarn_conf,
    }
    conf = with_jars(conf, step, deployment)
    return YarnWorkloadOperator(url=deployment.yarn_url or "", user=deployment.user, conf=conf, **common)


def build_dag(spec: DagSpec, deployment: Deployment, module: str) -> DAG:
    """The Airflow DAG of a spec: started by hand, an operator per step, an edge from each input in the DAG."""
    with DAG(
        dag_id=spec.dag_id,
        description=spec.description,
        schedule=None,
        start_date=_START_DATE,
        catchup=False,
        tags=[*spec.tags, *([deployment.user] if deployment.user else [])],
        params={
            "force": Param(
                [],
                type="array",
                items={"type": "string"},
                description="Steps to compute again, with all that depends on them; 'all' for every step",
            ),
            "engine": Param(
                None,
                type=["null", "string"],
                enum=[None, "embedded", "spark"],
                description="What computes the steps of this run, instead of what the profile and the steps say",
            ),
        },
        doc_md=f"{spec.description}\n\n{RELEASE_LINE}{deployment.release}",
        is_paused_upon_creation=False,
        render_template_as_native_obj=False,
    ) as dag:
        operators = {step.name: make_operator(spec, step, deployment, module) for step in spec.steps}
        for step in spec.steps:
            for parent in spec.upstream(step):
                operators[parent.name] >> operators[step.name]
    return dag
