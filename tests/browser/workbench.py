"""A checkout of its own to open in a browser: the real notebooks and ablations, and a small study to run."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lab.data.filters.loss_filters import LOSS_COLUMNS, SUMMARY
from lab.data.instructions.instructions import read_instructions
from lab.paths import repository_root
from tests.speech import tiny_parameters

STUDY, RUNG = "small_ear", "tiny"
ROWS = ("conv_gmlp_2", "conv_gmlp_4")
LONG_ROW, LONG_STEPS = "mean_pool_mlp_8", 6000
"""A row that trains long enough to be looked at meanwhile."""

ABLATION = '''"""The downsample-rate study, of tones that a random Whisper hears."""

import dataclasses

from ablations_of_figure_6 import ablation as figure_6
from ablations_of_figure_6 import contrasts
from lab.study.ablation import Rung

__all__ = ["ablation", "contrasts"]

steps = {{"{long_row}": {long_steps}}}
ablation = dataclasses.replace(
    figure_6,
    name="{study}",
    claim="None: a study to look at in a browser.",
    rows=tuple(
        dataclasses.replace(row, changes={{**row.changes, "steps": steps.get(row.key, {steps})}})
        for row in figure_6.rows
    ),
    seeds=(0,),
    golden={{}},
    rungs=(Rung(name="{rung}", description="a test's", changes={changes}, recorded=False),),
)
'''


@dataclass(frozen=True)
class Workbench:
    """The checkout's folder, and the environment in which `lab`, Jupyter and MLflow find it and nothing else."""

    root: Path
    environment: dict[str, str]

    @property
    def mlruns(self) -> Path:
        return Path(self.environment["OMNI_LAB_MLRUNS"])

    def lab(self, *arguments: str, seconds: float = 600) -> str:
        """Run `lab ARGUMENTS`; what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", "from lab.cli import main; main()", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def set_parameters(self, notebook: str, **values: object) -> None:
        """Give the notebook's parameters other values, as a person edits the cell."""
        path = self.root / "notebooks" / f"{notebook}.ipynb"
        content = json.loads(path.read_text(encoding="utf-8"))
        (cell,) = [one for one in content["cells"] if "parameters" in one["metadata"].get("tags", [])]
        lines = "".join(cell["source"]).splitlines()
        for name, value in values.items():
            (at,) = [number for number, line in enumerate(lines) if line.startswith(f"{name}:")]
            lines[at] = f"{name} = {value!r}"
        cell["source"] = "\n".join(lines)
        path.write_text(json.dumps(content), encoding="utf-8")


def make_workbench(folder: Path, packages: Path) -> Workbench:
    """Make it in an empty folder; what it fetches is put where the packages lie."""
    ours, root = repository_root(), folder / "omni-lab"
    for part in ("notebooks", "ablations"):
        kept = shutil.ignore_patterns("*.rows.toml", "__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ours / part, root / part, ignore=kept)
    (folder / "cache").mkdir()
    (folder / "cache" / "packages").symlink_to(packages)
    # Under a name that is no ablation's, so that the study beside it is one of its own.
    (folder / "modules").mkdir()
    shutil.copyfile(ours / "ablations" / "conv_gmlp_rate.py", folder / "modules" / "ablations_of_figure_6.py")
    changes = tiny_parameters(folder)
    (root / "ablations" / f"{STUDY}.py").write_text(
        ABLATION.format(
            study=STUDY,
            rung=RUNG,
            long_row=LONG_ROW,
            long_steps=LONG_STEPS,
            steps=changes.pop("steps"),
            changes=changes,
        ),
        encoding="utf-8",
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OMNI_LAB_", "JUPYTER"))},
        "PYTHONPATH": os.pathsep.join([str(ours), str(folder / "modules")]),
        "OMNI_LAB_CHECKOUT": str(root),
        "OMNI_LAB_MLRUNS": str(root / "mlruns"),
        "OMNI_LAB_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "JUPYTER_CONFIG_PATH": str(ours / ".jupyter"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / "jupyter" / "config"),
        "JUPYTER_DATA_DIR": str(folder / "jupyter" / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "jupyter" / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "jupyter" / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "jupyter" / "workspaces"),
    }
    return Workbench(root, environment)


def write_scores(folder: Path) -> Path:
    """A folder as `lab score chatterbot` writes it, with losses made up."""
    ids = [one.id for one in read_instructions("chatterbot", limit=400).samples]
    columns = {
        "id": ids,
        "loss": np.random.default_rng(0).gamma(4.0, 0.5, len(ids)),
        "loss_without_prompt": [None] * len(ids),
        "num_tokens": [3] * len(ids),
        "prompt_tokens": [3] * len(ids),
    }
    folder.mkdir()
    pq.write_table(pa.table(columns, schema=LOSS_COLUMNS), folder / "part-000000.parquet")
    (folder / SUMMARY).write_text("{}")
    return folder
