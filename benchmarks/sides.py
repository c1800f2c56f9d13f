"""The two ways to run a cell, each as a command of its own, and where their wall times went."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import paths
from lab.errors import LabError
from lab.study import store
from lab.study.ablation import Ablation, Cell, Rung
from lab.study.parameters import cell_source, notebook_parameters, read_notebook
from lab.study.sweep import prepare_cells, reproduce
from lab.study.worker import worker_environment
from lab.training.parameters import SpeechParameters

STOCK_NOTEBOOK = Path(__file__).parent / "stock_cell.ipynb"
RUNG_DESCRIPTION = "a rung of the benchmark: cut short"
SAMPLE_UTTERANCES = 32  # encoded to tell what the features cost
# What a notebook cell does is known by the first of these that stands in it.
STAGES = (
    ("imports", "import torch\n"),
    ("data", "heard_data("),
    ("model", "StockAudioLanguageModel("),
    ("model", "OmniModel("),
    ("model", "TrainingArguments("),
    ("training", "train("),
    ("decoding", "measure(model, "),
    ("decoding", "answer(model, "),
    ("tracking", "mlflow."),
)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way's wall time, where it went (seconds by stage), losses by step, and what it measured."""

    wall_seconds: float
    stages: dict[str, float]
    losses: list[float]
    results: dict[str, float]


def prepare(ablation: Ablation, cell: Cell, folder: Path) -> tuple[float, float]:
    """Make what both sides find ready; returns its seconds, and about those of all training utterances' features."""
    begun = time.perf_counter()
    prepare_cells(ablation, cell.rung, [cell.row], [cell.seed])
    seconds = time.perf_counter() - begun
    store.ensure_store()
    rung = ablation.rung(cell.rung)
    order = {"row": cell.row, "seed": cell.seed, "rung": {"name": rung.name, "changes": dict(rung.changes)}}
    (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
    return seconds, _write_start(SpeechParameters(**cell.parameters), folder / "start.safetensors")


def _write_start(parameters: SpeechParameters, path: Path) -> float:
    """The weights that our notebook draws from its seed, for the stock projector; returns the features' seconds."""
    # Imported here: the processes that are timed import this module too.
    import torch
    from safetensors.torch import save_file

    from benchmarks.stock_model import StockConvGMLP
    from lab.training.cell import AUDIO, heard_data, hearing_model
    from lab.training.named_parts import open_audio_encoder, open_language_model

    encoder = open_audio_encoder(parameters.audio_encoder, window=parameters.encoder_window)
    data = heard_data(parameters, encoder)
    train = data[AUDIO]
    llm = open_language_model(parameters.language_model, pretraining_steps=parameters.pretraining_steps)
    widths: dict[str, int] = {
        "hidden_size": encoder.hidden_size,
        "output_size": llm.hidden_size,
        "downsample_rate": parameters.downsample_rate,
    }
    torch.manual_seed(parameters.seed)
    ours = hearing_model(parameters, encoder, llm, data).audio_projector
    weights = StockConvGMLP(**widths).load_ours(ours.projector).state_dict()
    save_file({**weights, "feature_mean": ours.feature_mean, "feature_std": ours.feature_std}, path)
    sample = train.samples[:: max(1, len(train) // SAMPLE_UTTERANCES)][:SAMPLE_UTTERANCES]
    begun = time.perf_counter()
    for one in sample:
        encoder.encode(one.sound.read())
    return (time.perf_counter() - begun) / len(sample) * len(train)


def run_ours(folder: Path) -> Side:
    """Our way, in a process of its own, which `run_sweep` serves."""
    command = [sys.executable, str(Path(__file__).with_name("study.py")), "--order", str(folder / "order.json")]
    begun, seconds = _timed(command, worker_environment(1))
    (executed,) = (paths.mlruns_dir() / "notebooks").rglob("*.ipynb")
    losses, results = _newest_run()
    return Side(wall_seconds=seconds, stages=_stages(executed, begun, begun + seconds), losses=losses, results=results)


def run_sweep(ablation: Ablation, order: Mapping[str, Any]) -> None:
    """The one cell, as `lab reproduce` runs it."""
    rung = Rung(**order["rung"], description=RUNG_DESCRIPTION, recorded=False)
    outcome = reproduce(
        replace(ablation, rungs=(rung,)), rung=rung.name, rows=[order["row"]], seeds=[order["seed"]], workers=1
    )
    if not outcome.complete:
        raise LabError(f"our cell failed: {', '.join(outcome.failed.values()) or 'it was stopped'}")


def run_stock(cell: Cell, folder: Path) -> Side:
    """The stock way: papermill's command."""
    executed = folder / "stock.ipynb"
    given = {**cell.parameters, "start": str(folder / "start.safetensors"), "output": str(folder)}
    command = [str(Path(sys.executable).with_name("papermill")), str(STOCK_NOTEBOOK), str(executed)]
    for name in notebook_parameters(STOCK_NOTEBOOK):
        # papermill's -p would read a text such as "1.0" as a number.
        command += ["-r" if isinstance(given[name], str) else "-p", name, str(given[name])]
    environment = {
        **worker_environment(1),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(paths.repository_root()), os.environ.get("PYTHONPATH", "")])),
        "MLFLOW_TRACKING_URI": store.store_uri(store.database().resolve()),
        "MLFLOW_EXPERIMENT_NAME": store.EXPERIMENT,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    begun, seconds = _timed([*command, "--no-progress-bar", "--cwd", str(folder)], environment)
    losses, results = _newest_run()
    stages = _stages(executed, begun, begun + seconds)
    for stage, kind, target in (
        ("training", "log_mel", "features"),
        ("training", "encoder", "features"),
        ("training", "tracking", "tracking"),
        ("decoding", "log_mel", "features"),
        ("decoding", "encoder", "features"),
    ):
        moved = results.get(f"{stage}_clock_{kind}", 0.0)
        stages[stage] -= moved
        stages[target] = stages.get(target, 0.0) + moved
    return Side(wall_seconds=seconds, stages=stages, losses=losses, results=results)


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Run a command; when it began (seconds since 1970) and how long it took."""
    begun = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.time() - begun
    if done.returncode:
        raise LabError(f"{Path(command[0]).name} ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return begun, seconds


def _stages(executed: Path, begun: float, ended: float) -> dict[str, float]:
    """Seconds by stage, from the times that papermill writes into every cell."""
    stages: dict[str, float] = {}
    starts, ends = [], []
    for cell in read_notebook(executed)["cells"]:
        if cell["cell_type"] != "code":
            continue
        timing = cell["metadata"]["papermill"]
        starts.append(_seconds(timing["start_time"]))
        ends.append(_seconds(timing["end_time"]))
        text = cell_source(cell)
        stage = next((name for name, needle in STAGES if needle in text), "rest")
        stages[stage] = stages.get(stage, 0.0) + ends[-1] - starts[-1]
    stages["launch"] = starts[0] - begun
    stages["end"] = ended - ends[-1]
    stages["rest"] = stages.get("rest", 0.0) + (ended - begun) - sum(stages.values())  # between cells
    return stages


def _seconds(moment: str) -> float:
    parsed = datetime.fromisoformat(moment)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _newest_run() -> tuple[list[float], dict[str, float]]:
    """Losses by step and final numbers of the run that was tracked last."""
    store.quiet_mlflow()
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=store.store_uri())
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"])
    run = next(run for run in runs if "loss" in run.data.metrics)
    points = sorted(client.get_metric_history(run.info.run_id, "loss"), key=lambda point: point.step)
    return [point.value for point in points], dict(run.data.metrics)
