"""A checkout with made-up results of a rate study: its declaration, its results file, and its utterances."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from lab import paths
from lab.study import results
from lab.study.ablation import Ablation, load_ablation

NAME = "conv_gmlp_rate"

DECLARATION = """
from lab.paper.claims import Contrast
from lab.study.ablation import Ablation, Column, Reported, Row, Rung
from lab.training.parameters import SpeechParameters

ROWS = [
    Row(key=f"{p}_{n}", label=f"{p.upper()}, n = {n}", changes={"projector": p, "downsample_rate": n}, main=main)
    for p, main in (("conv_gmlp", True), ("mean_pool_mlp", True), ("mean_pool_gmlp", True), ("q_former", False))
    for n in (2, 4, 8)
]
ablation = Ablation(
    name="conv_gmlp_rate",
    paper="Figure 6",
    claim="Pooling errs more at high rates.",
    notebook="conv_gmlp_rate",
    seeds=(0, 1, 2),
    base=SpeechParameters(steps=9),
    rungs=(
        Rung(name="cpu", description="a small rung; not the paper's scale"),
        Rung(name="gpu", description="one GPU", changes={"steps": 99}),
        Rung(name="smoke", description="a few steps", changes={"steps": 1}, recorded=False),
    ),
    rows=ROWS,
    columns=(
        Column(
            metric="test_character_error_rate",
            label="CER",
            unit="%",
            better="lower",
            scale=100,
            interval="character_error_rate",
        ),
        Column(
            metric="test_word_error_rate",
            label="WER",
            unit="%",
            better="lower",
            scale=100,
            interval="word_error_rate",
        ),
        Column(metric="projector_parameters", label="projector", unit="M parameters", better="lower", scale=1e-6),
        Column(metric="training_seconds", label="training", unit="s", better="lower"),
    ),
    reported=(
        Reported(row="conv_gmlp_2", metric="test_word_error_rate", value=0.077, source="notes", note="1.5B audio LM"),
        Reported(row="mean_pool_mlp_2", metric="test_word_error_rate", value=None, source="not found"),
    ),
)
contrasts = (
    Contrast(label="the claim", baseline="mean_pool_mlp", candidate="conv_gmlp", low_rate=2, high_rate=8),
    Contrast(label="form alone", baseline="mean_pool_gmlp", candidate="conv_gmlp", low_rate=2, high_rate=8),
)
"""

Rates = Mapping[tuple[str, int], float]
GROWING_GAP: Rates = {
    **{("conv_gmlp", n): rate for n, rate in ((2, 0.20), (4, 0.24), (8, 0.28))},
    **{("mean_pool_mlp", n): rate for n, rate in ((2, 0.22), (4, 0.34), (8, 0.48))},
    **{("mean_pool_gmlp", n): rate for n, rate in ((2, 0.21), (4, 0.30), (8, 0.40))},
}


def write_checkout(root: Path) -> None:
    (root / "ablations").mkdir(parents=True)
    (root / "ablations" / f"{NAME}.py").write_text(DECLARATION, encoding="utf-8")


def cell_utterances(rate: float, projector: str, downsample_rate: int, seed: int, num: int = 50) -> pd.DataFrame:
    """Test utterances of the corpus `actors`, with a development set and `asterisk`, whose errors are all others."""
    rng = np.random.default_rng([len(projector), downsample_rate, seed])
    lengths = 20 + np.arange(num) % 7
    errors = rng.binomial(lengths, np.clip(rate + rng.normal(0, 0.004), 0, 1))
    frame = pd.DataFrame(
        {
            "source": "actors",
            "split": "test",
            "id": [f"u{u}" for u in range(num)],
            "group": [f"text {u}" for u in range(num)],
            "num_characters": lengths,
            "character_errors": errors,
            "num_words": 5,
            "word_errors": errors // 5,
        }
    )
    noise = frame.assign(character_errors=frame["num_characters"], word_errors=5)
    return pd.concat([frame, noise.assign(split="dev"), noise.assign(source="asterisk")], ignore_index=True)


def write_results(
    rates: Rates,
    rung: str = "cpu",
    seeds: Sequence[int] = (0, 1, 2),
    more_seeds: Mapping[tuple[str, int], Sequence[int]] = MappingProxyType({}),
) -> Ablation:
    """A results file and the utterances of its runs, as a sweep would have left them; `more_seeds` of single cells."""
    ablation = load_ablation(NAME)
    lines = []
    for (projector, downsample_rate), rate in rates.items():
        for seed in (*seeds, *more_seeds.get((projector, downsample_rate), ())):
            run_id = f"{projector}{downsample_rate}s{seed}{rung}".replace("_", "").ljust(32, "0")
            frame = cell_utterances(rate, projector, downsample_rate, seed)
            path = paths.mlruns_dir() / "artifacts" / run_id / "artifacts" / "utterances.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_parquet(path)
            test = frame[(frame["split"] == "test") & (frame["source"] == "actors")]
            lines.append(
                {
                    "row": f"{projector}_{downsample_rate}",
                    "rung": rung,
                    "seed": str(seed),
                    "key": "0" * 16,
                    "run_id": run_id,
                    "projector": projector,
                    "downsample_rate": str(downsample_rate),
                    "test_character_error_rate": repr(
                        float(test["character_errors"].sum() / test["num_characters"].sum())
                    ),
                    "test_word_error_rate": repr(float(test["word_errors"].sum() / test["num_words"].sum())),
                    "projector_parameters": str(1_500_000 * downsample_rate),
                    "training_seconds": str(30 + seed),
                }
            )
    results._write(ablation, rung, lines)
    return ablation
