"""The golden runs of every study notebook that stand in `golden.json`: `python -m tests.golden` writes it anew.

Write it anew only where a change is meant to move results, and say in the commit which and why. Made on one thread, in
float32, on the CPU, with language models of a few steps and few samples: one cell a study at rung `smoke`, one at rung
`cpu` with the ablation's `golden` parameters.

    python -m tests.golden  # about four minutes of one core; fetches the packages of a study into the user's cache
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lab import paths
from lab.study import store
from lab.study.ablation import load_ablation
from lab.study.golden import LOSS, Record, arithmetic, golden_record
from lab.study.parameters import cell_source, read_notebook

FILE = Path(__file__).with_name("golden.json")
# A row of each study at `smoke`, and one at `cpu`: between them as much of the code as two rows can reach.
ROWS = {
    "conv_gmlp_rate": ("mean_pool_gmlp_4", "conv_gmlp_2"),
    "loss_filter": ("gaussian_by_source", "gaussian_1"),
    "loss_filter_images": ("gaussian_1", "ifd"),
    "anyres": ("fixed_more_tokens", "anyres"),
    "visual_encoder": ("efficientnet_imagenet", "efficientnet_imagenet"),
    "visual_projector": ("concat", "c_abstractor"),
    "video_frames": ("frames_8", "anyres_8"),
    "video_pretraining": ("direct", "staged"),
    "baichuan_omni": ("small_rates", "small_rates"),
    "omni_alignment": ("joint", "projectors_only"),
    "sft": ("square_root", "hard"),
}
SMALL = {"pretraining_steps": 20, "precision": "float32", "device": "cpu"}
TEXT_NOTEBOOK = "character_lm"
NOTEBOOKS = (*dict.fromkeys(load_ablation(name).notebook for name in ROWS), TEXT_NOTEBOOK)


def parameters_of(notebook: str) -> dict[str, dict[str, Any]]:
    """All parameters of the notebook's golden runs, by their names."""
    if notebook == TEXT_NOTEBOOK:
        return {TEXT_NOTEBOOK: {"steps": SMALL["pretraining_steps"], "num_samples": 2}}
    runs = {}
    for name, (at_smoke, at_cpu) in ROWS.items():
        ablation = load_ablation(name)
        if ablation.notebook == notebook:
            smoke, cpu = (
                ablation.resolve(row, rung, ablation.seeds[0]).as_dict()
                for row, rung in ((at_smoke, "smoke"), (at_cpu, "cpu"))
            )
            runs[f"{name}, smoke, {at_smoke}"] = {**smoke, **SMALL}
            runs[f"{name}, cpu, {at_cpu}"] = {**cpu, **ablation.golden, **SMALL}
    return runs


def run_notebook(notebook: str, parameters: dict[str, Any], run_id: str) -> Record:
    """Run the notebook's code in this process, on these parameters."""
    spool = store.spool_dir(run_id)
    (spool / "artifacts").mkdir(parents=True)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in read_notebook(paths.repository_root() / "notebooks" / f"{notebook}.ipynb")["cells"]:
        if cell["cell_type"] == "code":
            exec(compile(cell_source(cell), notebook, "exec"), namespace)
            if "parameters" in cell["metadata"].get("tags", ()):
                namespace |= {**parameters, "run_id": run_id}
    curves = spool / "metrics.jsonl"  # absent where no step was told of
    told = [json.loads(line) for line in curves.read_text(encoding="utf-8").splitlines()] if curves.exists() else []
    losses = [(step, value) for name, step, value, _ in told if name == LOSS]
    results = json.loads((spool / "results.json").read_text(encoding="utf-8"))
    return golden_record(losses, results, arithmetic=arithmetic(), changes={})


def run_apart(notebook: str, packages: Path) -> dict[str, Record]:
    """The notebook's golden runs, made in a process of its own: no test before it and no cache has a say in them."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        cache.mkdir()
        packages.mkdir(parents=True, exist_ok=True)
        (cache / "packages").symlink_to(packages)
        own = {"OMNI_LAB_CACHE": str(cache), "OMNI_LAB_MLRUNS": str(Path(folder, "mlruns")), "MPLBACKEND": "Agg"}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        made = Path(folder, "made.json")
        command = [sys.executable, "-m", "tests.golden", notebook, "--to", str(made)]
        done = subprocess.run(
            command,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **own, **threads},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        records: dict[str, Record] = json.loads(made.read_text(encoding="utf-8"))
        return records


def read_committed() -> dict[str, Record]:
    """The golden runs of `golden.json`, by name."""
    committed = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: {**run, "arithmetic": committed["arithmetic"]} for name, run in committed["runs"].items()}


def main() -> None:
    """Write `golden.json`, or the runs of one notebook to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", nargs="?", choices=NOTEBOOKS, help="run this one, in this process")
    parser.add_argument("--to", type=Path, help="its file")
    asked = parser.parse_args()
    records: dict[str, Record] = {}
    if asked.notebook:
        for name, parameters in parameters_of(asked.notebook).items():
            records[name] = run_notebook(asked.notebook, parameters, name.replace(", ", "-"))
        asked.to.write_text(json.dumps(records), encoding="utf-8")
        return
    for notebook in NOTEBOOKS:
        print(f"running the golden runs of {notebook}.ipynb", flush=True)
        records |= run_apart(notebook, paths.cache_dir() / "packages")
    kept = {name: {part: record[part] for part in ("losses", "results")} for name, record in records.items()}
    shared = next(iter(records.values()))["arithmetic"]
    FILE.write_text(json.dumps({"arithmetic": shared, "runs": kept}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
