"""One cell of the downsample-rate study our way, against the same cell wired from stock parts.

    python benchmarks/study.py [--rung cpu|smoke] [--row conv_gmlp_4] [--steps 40] [--seed 0] [--test-utterances 32]

Both run in turn, ours first, each as a command of its own, with the same threads. Ours is what `lab reproduce` does, in
a store of its own. The other is `papermill stock_cell.ipynb` (see there and `stock_model.py`).

The same on both sides: corpus, utterances, frozen Whisper and language model, first weights of the projector, mean and
standard deviation of the features, augmentation, number of steps, batch size, AdamW and its schedule, clipping,
precision, no checkpoints, beams, length limits, normaliser, a point a step and a table in MLflow,
loss curve and samples in the notebook.

Made before the clock starts, for both: corpora, language model, MLflow's store; for ours the features too,
and what they cost is printed.

The stock side gets what takes a flag or a line: no gradients through the frozen encoder, features cropped to the
batch's longest before the projector, the fused AdamW, bfloat16 where it is fast, audio encoded once for loss and
answer, test batches as large as ours, no progress bar.

It does not get what takes code: features kept between steps or runs, windows shorter than 30 s, batches by length, the
language model's head on the answer alone, decoding that lets finished utterances go. Its log-mel spectrograms are
computed in the training process, which is the Trainer's default.

Batches hold different utterances, and the encoder sees 30 s there but the clip and half a second here, so losses agree
within noise, not exactly.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lab.errors import LabError, choose
from lab.paths import repository_root
from lab.study.ablation import Ablation, Cell, cells, load_ablation
from lab.study.worker import available_cores

sys.path.insert(0, str(repository_root()))  # `benchmarks` is no installed package

from benchmarks.sides import RUNG_DESCRIPTION, Side, prepare, run_ours, run_stock, run_sweep

STUDY = "conv_gmlp_rate"
MEASURED = ("max_test_utterances", "max_out_of_domain_utterances")
RUNGS = ("smoke", "cpu")
MAX_STEPS = 40
LAST_STEPS = 20  # over which the final training loss is averaged
LABELS = {
    "launch": "launch, up to the first cell (ours: opening the run in MLflow)",
    "imports": "imports in the notebook (stock: of mlflow too)",
    "data": "opening corpus, weights and (ours) features",
    "model": "building the model",
    "features": "log-mel and encoder, in every step and in decoding",
    "training": "training steps",
    "decoding": "decoding and scoring",
    "tracking": "tracking in the notebook",
    "rest": "figure, samples, between cells",
    "end": "after the last cell (ours: closing the run, results file)",
}


def shortened(rung: str, *, steps: int | None, test_utterances: int) -> Ablation:
    """The study with this rung cut short, its results in no tracked file."""
    ablation = load_ablation(STUDY)
    chosen = ablation.rung(choose({name: name for name in RUNGS}, rung, "rung of the benchmark:"))
    full = {**ablation.base.as_dict(), **chosen.changes}
    steps = min(full["steps"], MAX_STEPS) if steps is None else steps
    if steps < 2 or test_utterances < 1:
        raise LabError(f"the benchmark needs at least 2 steps and 1 test utterance, not {steps} and {test_utterances}")
    changes = {
        **chosen.changes,
        "steps": steps,
        "checkpoint_every": 0,
        "warmup_steps": min(full["warmup_steps"], steps - 1),
        **{name: min(full[name] or test_utterances, test_utterances) for name in MEASURED},
    }
    return replace(ablation, rungs=(replace(chosen, description=RUNG_DESCRIPTION, recorded=False, changes=changes),))


def chosen_cell(ablation: Ablation, rung: str, row: str, seed: int) -> Cell:
    """The one cell; its projector must be one that the stock side has."""
    rows = {entry.key: entry for entry in ablation.rows if entry.changes["projector"] == "conv_gmlp"}
    choose(rows, row, "row of the benchmark:")
    return cells(ablation, rung, [row], [seed])[0]


def compare(ablation: Ablation, cell: Cell, folder: Path) -> str:
    """Prepare, run both sides in turn, and report; `folder` takes what they hand each other."""
    prepared = prepare(ablation, cell, folder)
    ours = run_ours(folder)
    print(f"ours: {ours.wall_seconds:.1f} s; now the stock parts", flush=True)
    return report(ours, run_stock(cell, folder), prepared)


def report(ours: Side, stock: Side, prepared: tuple[float, float]) -> str:
    """The ratio, where the time goes, and whether both learned the same."""
    ratio = stock.wall_seconds / ours.wall_seconds
    with_features = stock.wall_seconds / (ours.wall_seconds + prepared[1])
    lines = [
        f"ratio of wall times, stock / ours: {ratio:.2f}  ({stock.wall_seconds:.1f} s / {ours.wall_seconds:.1f} s)",
        f"prepared before, not in these times: {prepared[0]:.1f} s, for what was not in the cache yet",
        f"the features of all training utterances cost about {prepared[1]:.0f} s, once for all cells; if this short "
        f"cell alone had to pay for them, the ratio would be {with_features:.2f}",
        "",
        f"{'seconds':64}{'ours':>9}{'stock':>9}",
    ]
    for stage, label in LABELS.items():
        lines.append(f"{label:64}{ours.stages.get(stage, 0.0):9.1f}{stock.stages.get(stage, 0.0):9.1f}")
    lines.append(f"{'total':64}{ours.wall_seconds:9.1f}{stock.wall_seconds:9.1f}")
    last = [side.losses[-LAST_STEPS:] for side in (ours, stock)]
    means = [statistics.fmean(losses) for losses in last]
    # The losses still fall over these steps, so that their spread is a little more than noise.
    noise = math.hypot(*(statistics.stdev(losses) / math.sqrt(len(losses)) for losses in last))
    difference = means[1] - means[0]
    agree = "agree within noise" if abs(difference) <= 2 * noise else "DIFFER by more than noise"
    lines += [
        "",
        f"training loss, mean of the last {len(last[0])} steps: ours {means[0]:.4f}, stock {means[1]:.4f}, difference "
        f"{difference:+.4f}, its standard error {noise:.4f}: they {agree}",
    ]
    for metric in ("test_loss", "test_character_error_rate"):
        values = [side.results[metric] for side in (ours, stock)]
        lines.append(f"{metric}: ours {values[0]:.4f}, stock {values[1]:.4f}, difference {values[1] - values[0]:+.4f}")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(description="One cell of the study, our way and wired from stock parts, timed.")
    parser.add_argument("--rung", default="cpu", help="cpu or smoke [cpu]")
    parser.add_argument("--row", default="conv_gmlp_4", help="a Conv-GMLP row of the study [conv_gmlp_4]")
    parser.add_argument("--steps", type=int, help=f"training steps [the rung's, at most {MAX_STEPS}]")
    parser.add_argument("--seed", type=int, default=0, help="of both sides [0]")
    parser.add_argument("--test-utterances", type=int, default=32, help="at most, of each measured split [32]")
    parser.add_argument("--order", type=Path, help=argparse.SUPPRESS)  # for the process that is timed as our side
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both sides in turn and print the report."""
    options = parse(arguments)
    if options.order:
        run_sweep(load_ablation(STUDY), json.loads(options.order.read_text(encoding="utf-8")))
        return
    ablation = shortened(options.rung, steps=options.steps, test_utterances=options.test_utterances)
    cell = chosen_cell(ablation, options.rung, options.row, options.seed)
    own, full = cell.parameters, load_ablation(STUDY).resolve(cell.row, cell.rung).as_dict()
    cut = [f"{name} {own[name]} (the study: {full[name]})" for name in ("steps", "batch_size", *MEASURED)]
    print(f"{cell.row}, rung {cell.rung}, seed {cell.seed}; on both sides {', '.join(cut)}", flush=True)
    if (load := os.getloadavg()[0]) > available_cores() / 2:
        # Two threads that wait for each other on a shared core were seen to take 20 times as long, on either side.
        print(f"the machine is busy (load average {load:.1f}): these times will say little", flush=True)
    with tempfile.TemporaryDirectory(prefix="omni-lab-benchmark-") as scratch:
        os.environ["OMNI_LAB_MLRUNS"] = str(Path(scratch) / "mlruns")
        print(compare(ablation, cell, Path(scratch)))


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"error: {error}")
