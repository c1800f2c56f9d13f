"""A checkout with a study of this repository and made-up results of it: its results file, its single answers."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lab import paths
from lab.study import results
from lab.study.ablation import Ablation, load_ablation

REPOSITORY = Path(__file__).parents[2]
# As of the scenes, with the number of choices.
KINDS = {
    "moves": 3,
    "direction": 4,
    "came_first": 2,
    "left_first": 2,
    "before": 2,
    "how_many": 3,
    "size_change": 2,
    "turns": 2,
    "hides": 2,
}
CHANCE = sum(1 / choices for choices in KINDS.values()) / len(KINDS)


def write_study(root: Path, name: str) -> None:
    """The declaration as it is, in a checkout of its own."""
    (root / "ablations").mkdir(parents=True, exist_ok=True)
    for path in (REPOSITORY / "ablations" / f"{name}.py", *(REPOSITORY / "ablations").glob("_*.py")):
        shutil.copy(path, root / "ablations")


def cell_answers(accuracy: float, row: str, seed: int, num: int = 180) -> pd.DataFrame:
    """Test answers, two questions a group, the kinds taking turns; and a development set that is all wrong."""
    rng = np.random.default_rng([*row.encode(), seed])
    kinds = [list(KINDS)[at % len(KINDS)] for at in range(num)]
    frame = pd.DataFrame(
        {
            "source": "scenes",
            "split": "test",
            "id": [f"q{at}" for at in range(num)],
            "group": [f"g{at // 2}" for at in range(num)],
            "task": kinds,
            "answer": "left",
            "given": "right",
            "wrong_answers": rng.binomial(1, np.clip(1 - accuracy - rng.normal(0, 0.01), 0, 1), num),
            "num_questions": 1,
            "num_choices": [KINDS[kind] for kind in kinds],
        }
    )
    return pd.concat([frame, frame.assign(split="dev", wrong_answers=1)], ignore_index=True)


def write_answers(
    name: str,
    accuracies: Mapping[str, float],
    *,
    rung: str = "cpu",
    seeds: Sequence[int] = (0, 1, 2),
    tokens: Mapping[str, float] | None = None,
) -> Ablation:
    """A results file and the answers of its runs, as a sweep would have left them; `tokens` are visual, a question."""
    ablation = load_ablation(name)
    lines = []
    for row, accuracy in accuracies.items():
        for seed in seeds:
            run_id = f"{row}s{seed}{rung}".replace("_", "").ljust(32, "0")
            frame = cell_answers(accuracy, row, seed)
            path = paths.mlruns_dir() / "artifacts" / run_id / "artifacts" / "utterances.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_parquet(path)
            test = frame[frame["split"] == "test"]
            parameters = ablation.resolve(row, rung)
            lines.append(
                {
                    **{"row": row, "rung": rung, "seed": str(seed), "key": "0" * 16, "run_id": run_id},
                    **{parameter: str(getattr(parameters, parameter)) for parameter in ablation.varied},
                    "test_accuracy": repr(float(1 - test["wrong_answers"].mean())),
                    "test_chance": repr(float((1 / test["num_choices"]).mean())),
                    "visual_tokens_per_question": repr(float((tokens or {}).get(row, 72.0))),
                }
            )
    results._write(ablation, rung, lines)
    return ablation
