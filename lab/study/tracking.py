"""What is kept of a cell: the notebook's side (`cell_run`) and the sweep's side (`Recorder`).

A notebook writes its metrics and tables to a spool folder, and whoever drives it moves them into MLflow: importing
mlflow and connecting take a kernel 4 to 5 s, a line in a file nothing, and what a killed cell had measured is still
there. A notebook opened by hand drives itself. Importing this module imports neither mlflow nor pandas.
"""

import atexit
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from lab import paths
from lab.errors import LabError
from lab.study import leases, store
from lab.study.ablation import Cell
from lab.study.definitions import digest
from lab.study.identity import PACKAGES, package_versions

if TYPE_CHECKING:
    import pandas
    from mlflow.entities import RunTag

PUBLISH_SECONDS = 2.0  # between two writings of a run made by hand: nobody looks more often
MAX_PUBLISHED = 1000  # metric points MLflow takes in one call
MAX_TAG_LETTERS = 8000  # that MLflow keeps of a tag
# Those of a cell that name data; the last that it has is what it is tested on.
DATA_PARAMETERS = (
    "out_of_domain_corpus",
    "corpus",
    "images",
    "videos",
    "instructions",
    "test_instructions",
    "test_source",
)


class CellRun:
    """Where a notebook puts what it measures; `with cell_run(...) as run:` or `run = cell_run(...)`, `run.finish()`."""

    def __init__(self, *, run_id: str, recorder: "Recorder | None" = None, resources: ExitStack | None = None) -> None:
        self.run_id = run_id
        self._directory = store.spool_dir(run_id)
        self._recorder = recorder
        self._resources = resources
        self._open, self._published = True, 0.0
        if recorder is not None:
            atexit.register(self.finish, "KILLED", "its kernel was shut down before finish()")

    def log_metrics(self, metrics: Mapping[str, Iterable[tuple[int, float]]]) -> None:
        """Add points (step, value) to curves, by name; thousands at once cost no more than one."""
        now = int(time.time() * 1000)
        points = ((name, int(step), float(value)) for name, curve in metrics.items() for step, value in curve)
        if lines := "".join(f"{json.dumps([*point, now])}\n" for point in points):
            with (self._directory / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(lines)
        if self._recorder is not None and time.monotonic() - self._published >= PUBLISH_SECONDS:
            self._recorder.publish(self.run_id)
            self._published = time.monotonic()

    def artifact(self, name: str) -> Path:
        """Where to write the artifact of that name, a file or folder."""
        return self._directory / "artifacts" / name

    def log_table(self, table: "pandas.DataFrame", name: str = "utterances") -> None:
        """Keep a table as the Parquet artifact `NAME.parquet`."""
        table.to_parquet(self.artifact(f"{name}.parquet"), index=False)

    def log_json(self, value: Any, name: str) -> None:
        """Keep something as the artifact `NAME.json`."""
        self.artifact(f"{name}.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

    def set_results(self, results: Mapping[str, float]) -> None:
        """The cell's measured numbers, finite, one line of the results file; a cell without them has failed."""
        own = {name: float(value) for name, value in results.items()}
        if wrong := [f"{name} = {value}" for name, value in own.items() if not math.isfinite(value)]:
            raise LabError(f"a result is not a finite number: {', '.join(wrong)}")
        (self._directory / "results.json").write_text(json.dumps(own), encoding="utf-8")

    def finish(self, status: str = "FINISHED", error: str = "") -> None:
        """Close a run made by hand; where a sweep drives the notebook the sweep closes it."""
        if self._recorder is not None and self._open:
            self._open = False
            self._recorder.finish(self.run_id, status, error)
            atexit.unregister(self.finish)
            if self._resources is not None:
                self._resources.close()

    def __enter__(self) -> "CellRun":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.finish("FAILED" if issubclass(kind, Exception) else "KILLED", f"{kind.__name__}: {error}")


def cell_run(run_id: str | None, parameters: Mapping[str, Any]) -> CellRun:
    """The run to record into: the waiting sweep's own where it handed a `run_id`, else a new one, made by hand."""
    if run_id:
        if not store.spool_dir(run_id).is_dir():
            raise LabError(f"no sweep drives the run {run_id!r}; leave run_id empty to start a run by hand")
        return CellRun(run_id=run_id)
    own = {name: value for name, value in parameters.items() if name != "run_id"}
    return own_run("by hand", own, {"kind": "by hand"})


def own_run(name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> CellRun:
    """A run that no sweep drives: its process owns it and delivers what it keeps."""
    resources, recorder = ExitStack(), Recorder()
    every = resources.enter_context(leases.owner()) | provenance() | dict(tags)
    return CellRun(run_id=recorder.start(name, parameters, every), recorder=recorder, resources=resources)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(paths.repository_root()), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def provenance() -> dict[str, str]:
    """Tags that say which code made a run: commit, whether files differ from it, Python, machine, packages."""
    packages = package_versions([*PACKAGES, "omni-lab", "papermill", "mlflow", "torchvision", "timm", "pandas"])
    return {
        "git_commit": _git("rev-parse", "HEAD") or "unknown",
        "git_dirty": str(bool(_git("status", "--porcelain"))).lower(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{f"package.{name}": version for name, version in packages.items()},
    }


@contextmanager
def _writing() -> Iterator[None]:
    """Turn what a store says that cannot be written into one clear sentence."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise LabError(f"a run cannot be recorded: {store.trouble(error)}") from error


class Recorder:
    """The one writer to MLflow; slow to make (4 to 5 s), so one a process.

    Args:
        uri: the tracking server of another machine's store; this machine's own store where empty.
        experiment_id: of that store, where it is known already.

    Raises:
        LabError: the store cannot be read or made; from every method, that it cannot be written.
    """

    def __init__(self, uri: str = "", experiment_id: str = "") -> None:
        self.experiment_id, self._uri = experiment_id or store.ensure_store(), uri.rstrip("/")
        if uri:
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # MLflow's 7 are minutes
        store.quiet_mlflow()
        from mlflow.tracking import MlflowClient

        with _writing():
            self._client = MlflowClient(tracking_uri=self._uri or store.store_uri())

    @_writing()
    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str], parent: str = "") -> str:
        """Make a RUNNING run with its spool folder; tags get our prefix. Returns its id."""
        from mlflow.entities import Param

        # What is cut here is for people: ingredients.json has a cell's whole, and `study` refuses what it would cut.
        own = {f"{store.PREFIX}{tag}": str(value)[:MAX_TAG_LETTERS] for tag, value in tags.items()}
        own["mlflow.source.git.commit"] = tags.get("git_commit", "unknown")
        if parent:
            own["mlflow.parentRunId"] = parent
        run_id: str = self._client.create_run(self.experiment_id, tags=own, run_name=name).info.run_id
        (store.spool_dir(run_id) / "artifacts").mkdir(parents=True)
        self._client.log_batch(run_id, params=[Param(key, str(value)[:6000]) for key, value in parameters.items()])
        return run_id

    def start_cell(self, cell: Cell, tags: Mapping[str, str], parent: str) -> str:
        """Make the run of a cell, with all that its identity is made of; of another kind where the tags have one."""
        named = {"ablation": cell.ablation, "row": cell.row, "rung": cell.rung, "seed": str(cell.seed), "key": cell.key}
        prepared = {name: value for name, value in cell.ingredients.items() if name.startswith("prepared.")}
        run_id = self.start(
            f"{cell.row}, seed {cell.seed}", cell.parameters, {"kind": "cell", **tags, **named, **prepared}, parent
        )
        text = json.dumps(dict(cell.ingredients), indent=1, sort_keys=True)
        (store.spool_dir(run_id) / "artifacts" / "ingredients.json").write_text(text, encoding="utf-8")
        self._log_data(run_id, cell)
        return run_id

    @_writing()
    def _log_data(self, run_id: str, cell: Cell) -> None:
        """The data sets of a cell as MLflow's inputs of its run, known by what was prepared of them."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for name in DATA_PARAMETERS:
            chosen, prepared = cell.parameters.get(name), cell.ingredients.get(f"prepared.{name}")
            if chosen and prepared:
                source = json.dumps({"name": chosen, "prepared": prepared})
                data = Dataset(str(chosen)[:500], digest(str(prepared)), "omni-lab", source)
                inputs.append(DatasetInput(data, [InputTag("mlflow.data.context", name)]))
        if inputs:
            self._client.log_inputs(run_id, inputs)

    @_writing()
    def study(self, ablation: str, rung: str, tags: Mapping[str, str]) -> str:
        """The parent run of an ablation at a rung, made or found again, and set RUNNING with these tags.

        Raises:
            LabError: a tag that is longer than MLflow keeps: what was prepared is read from it again.
        """
        if long := [name for name, value in tags.items() if len(value) > MAX_TAG_LETTERS]:
            raise LabError(
                f"{long[0]!r} of study {ablation!r} has {len(tags[long[0]]):,} letters, and MLflow keeps "
                f"{MAX_TAG_LETTERS:,}; run fewer rows at once (--rows)"
            )
        named = {"kind": "study", "ablation": ablation, "rung": rung}
        with FileLock(paths.mlruns_dir() / "mlflow.db.lock"):
            found = find_study(ablation, rung)
            if found is None:
                run_id = self.start(f"{ablation} ({rung})", {}, {**tags, **named})
                store.remove_spool(run_id)
                return run_id
        self._client.log_batch(found.run_id, tags=_tags(tags))
        self._client.update_run(found.run_id, status="RUNNING")
        return found.run_id

    @_writing()
    def publish(self, run_id: str) -> None:
        """Move what the spool has gained into MLflow; a point sent twice is one point there."""
        from mlflow.entities import Metric

        source, mark = store.spool_dir(run_id) / "metrics.jsonl", store.spool_dir(run_id) / "published"
        if not source.exists():
            return
        # Empty where a full disk, or a kill -9, came between the mark's opening and its writing.
        begun = int(mark.read_text() or 0) if mark.exists() else 0
        data = source.read_bytes()[begun:]
        data = data[: data.rfind(b"\n") + 1]  # the last line may be half written
        points = [Metric(name, value, at, step) for name, step, value, at in map(json.loads, data.splitlines())]
        for begin in range(0, len(points), MAX_PUBLISHED):
            self._client.log_batch(run_id, metrics=points[begin : begin + MAX_PUBLISHED])
        mark.write_text(str(begun + len(data)))

    @_writing()
    def deliver(self, run_id: str, status: str) -> dict[str, float]:
        """Move all that the spool holds into MLflow, and leave the run RUNNING. Returns its results.

        `status` is the one that it is to end with, should the word of it be lost on its way to whoever closes it.
        """
        from mlflow.entities import Metric

        spool = store.spool_dir(run_id)
        self.publish(run_id)
        results: dict[str, float] = {}
        if (spool / "results.json").exists():
            results = json.loads((spool / "results.json").read_text(encoding="utf-8"))
        if (spool / "artifacts").is_dir():
            self._keep(run_id, str(spool / "artifacts"))
        linked = self._log_model(run_id) if (spool / "artifacts" / "model").is_dir() else {}
        now = int(time.time() * 1000)
        metrics = [Metric(name, results[name], now, 0, **linked) for name in results]
        tags = _tags({**store.results_tags(results), "delivered": status})
        self._client.log_batch(run_id, metrics=metrics, tags=tags)
        return results

    def _log_model(self, run_id: str) -> dict[str, str]:
        """Make the model that a run kept one of MLflow's logged models; what links results to it and to its test data.

        Its files stay the run's artifact `model`. A run that is delivered again has its model already.
        """
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

        run = self._client.get_run(run_id)
        if made := run.outputs.model_outputs if run.outputs else ():
            model_id = made[0].model_id
        else:
            model_id = self._client.create_logged_model(
                run.info.experiment_id,
                name=run.info.run_name,
                source_run_id=run_id,
                tags={MLFLOW_MODEL_IS_EXTERNAL: "true", f"{store.PREFIX}folder": "the artifact `model` of its run"},
                params=run.data.params,
                model_type="OmniModel",
            ).model_id
            self._client.finalize_logged_model(model_id, LoggedModelStatus.READY)
            self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        data = {tag.value: one.dataset for one in run.inputs.dataset_inputs for tag in one.tags} if run.inputs else {}
        tested = next((data[name] for name in reversed(DATA_PARAMETERS) if name in data), None)
        of_data = {} if tested is None else {"dataset_name": tested.name, "dataset_digest": tested.digest}
        return {"model_id": model_id, **of_data}

    def _keep(self, run_id: str, folder: str) -> None:
        if not self._uri:
            self._client.log_artifacts(run_id, folder)
            return
        # The experiment's artifacts have a file: address, which the client would write to on this machine's disk.
        from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

        address = f"{self._uri}/api/2.0/mlflow-artifacts/artifacts/{run_id}/artifacts"
        HttpArtifactRepository(address, tracking_uri=self._uri).log_artifacts(folder)

    @_writing()
    def close(self, run_id: str, status: str, error: str = "") -> None:
        """Give a run whose results and artifacts are delivered its last status: FINISHED, FAILED or KILLED."""
        if error:
            self._client.set_tag(run_id, f"{store.PREFIX}error", error[:5000])
        self._client.set_terminated(run_id, status)
        store.remove_spool(run_id)

    def finish(self, run_id: str, status: str, error: str = "") -> dict[str, float]:
        """Deliver what is left and close the run. Returns its results.

        The status comes last, so that a FINISHED run has all its artifacts.
        """
        results = self.deliver(run_id, status)
        self.close(run_id, status, error)
        return results

    def give_up(self, run: store.RunRecord, status: str, error: str) -> bool:
        """Close a run that nobody works on any more; whether it is FINISHED, as all of it had been delivered."""
        if finished := run.tags.get("delivered") == "FINISHED":
            self.close(run.run_id, "FINISHED")
        else:
            self.finish(run.run_id, status, error)
        return finished

    def is_open(self, run_id: str) -> bool:
        """Whether the run is still RUNNING."""
        return bool(self._client.get_run(run_id).info.status == "RUNNING")

    @_writing()
    def keep(self, run_id: str, name: str, text: str) -> None:
        """Keep a text with a run, as the artifact of that name; one that is there already is replaced."""
        self._client.log_text(run_id, text, name)

    @_writing()
    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run, with our prefix: all of them or none."""
        self._client.log_batch(run_id, tags=_tags(tags))


def _tags(tags: Mapping[str, str]) -> "list[RunTag]":
    from mlflow.entities import RunTag

    return [RunTag(f"{store.PREFIX}{tag}", value) for tag, value in tags.items()]


def find_study(ablation: str, rung: str) -> store.RunRecord | None:
    """The parent run of an ablation at a rung, or None."""
    wanted = {"ablation": ablation, "rung": rung}
    return next((run for run in store.tagged_runs("kind", "study") if wanted.items() <= run.tags.items()), None)


def close_abandoned(recorder: Recorder | None = None) -> list[str]:
    """Close the runs whose process died, as KILLED; returns their ids. Without any, mlflow stays out."""
    if not (suspects := {run.run_id for run in store.running_runs() if leases.is_abandoned(run)}):
        return []
    # An owner that ended well between reading its runs and asking for it had closed them before.
    abandoned = [run for run in store.running_runs() if run.run_id in suspects]
    for run in abandoned:
        recorder = recorder or Recorder()
        recorder.give_up(run, "KILLED", f"its process {run.tags['pid']} on {run.tags['host']} died")
        leases.owner_file(run.tags["owner"]).unlink(missing_ok=True)
    return [run.run_id for run in abandoned]
