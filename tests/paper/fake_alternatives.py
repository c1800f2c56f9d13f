"""A checkout with made-up results of a study of alternatives: rows by name, a line a question, accuracy in percent."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from lab import paths
from lab.study import results
from lab.study.ablation import Ablation, load_ablation

NAME = "orders"
DECLARATION = """
from lab.paper.claims import Comparison
from lab.study.ablation import Ablation, Column, Reported, Row, Rung
from lab.training.parameters import VisionParameters

ablation = Ablation(
    name="orders",
    paper="Table 10",
    claim="Images first helps video.",
    notebook="orders",
    seeds=(0, 1, 2),
    base=VisionParameters(steps=9),
    rungs=(Rung(name="cpu", description="a small rung"),),
    rows=[
        Row(key=key, label=key.capitalize(), changes={"curriculum": key}, main=key != "late")
        for key in ("direct", "staged", "mixed", "late")
    ],
    columns=(
        Column(
            metric="test_accuracy", label="accuracy", unit="%", better="higher", scale=100, interval="error_rate"
        ),
        Column(metric="lm_tokens", label="tokens", unit="M", better="lower", scale=1e-6),
    ),
    reported=(Reported(row="staged", metric="test_accuracy", value=0.5, source="notes", note="7B"),),
)
contrasts = (
    Comparison(label="the order", baseline="direct", candidate="staged"),
    Comparison(label="order alone", baseline="mixed", candidate="staged"),
)
"""

Accuracies = Mapping[str, float]
BETTER: Accuracies = {"direct": 0.45, "staged": 0.75, "mixed": 0.6}
NUM_QUESTIONS, PER_GROUP = 80, 2


def write_checkout(root: Path) -> None:
    (root / "ablations").mkdir(parents=True)
    (root / "ablations" / f"{NAME}.py").write_text(DECLARATION, encoding="utf-8")


def cell_answers(accuracy: float, row: str, seed: int) -> pd.DataFrame:
    """Test questions in groups of twins, and a development set in which all is wrong."""
    rng = np.random.default_rng([len(row), seed])
    wrong = rng.uniform(size=NUM_QUESTIONS) > accuracy + rng.normal(0, 0.005)
    questions = np.arange(NUM_QUESTIONS)
    frame = pd.DataFrame(
        {
            "source": "scenes",
            "split": "test",
            "id": [f"q{q}" for q in questions],
            "group": [f"g{q // PER_GROUP}" for q in questions],
            "task": np.where(questions % 2, "moves", "turns"),
            "wrong_answers": wrong.astype(int),
            "num_questions": 1,
        }
    )
    return pd.concat([frame, frame.assign(split="dev", wrong_answers=1)], ignore_index=True)


def write_results(
    accuracies: Accuracies,
    seeds: Sequence[int] = (0, 1, 2),
    more_seeds: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Ablation:
    """A results file and the answers of its runs, as a sweep would have left them."""
    ablation = load_ablation(NAME)
    lines = []
    for row, accuracy in accuracies.items():
        for seed in (*seeds, *more_seeds.get(row, ())):
            run_id = f"{row}s{seed}".ljust(32, "0")
            frame = cell_answers(accuracy, row, seed)
            path = paths.mlruns_dir() / "artifacts" / run_id / "artifacts" / "utterances.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_parquet(path)
            lines.append(
                {
                    "row": row,
                    "rung": "cpu",
                    "seed": str(seed),
                    "key": "0" * 16,
                    "run_id": run_id,
                    "curriculum": row,
                    "test_accuracy": repr(float(1 - frame[frame["split"] == "test"]["wrong_answers"].mean())),
                    "lm_tokens": "1500000",
                }
            )
    results._write(ablation, "cpu", lines)
    return ablation
