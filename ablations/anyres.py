"""Table 9 of the Baichuan-Omni report: reading small text with and without AnyRes.

AnyRes gives more resolution and more tokens at once, so two further rows tell them apart: AnyRes pooled to about the
tokens of a fixed resolution, and a fixed resolution that keeps every patch, with about the tokens of AnyRes.
"""

from dataclasses import replace

from ablations._vision import ACCURACY, COSTS, IMAGE_BASE, IMAGE_GOLDEN, NOTEBOOK, without
from lab.paper.claims import Comparison
from lab.paper.ledger.cells import reported
from lab.study.ablation import Ablation, Row, Rung, Trial

ablation = Ablation(
    name="anyres",
    paper="Baichuan-Omni technical report (arXiv 2410.08565), section 4.5, table 9",
    claim="Cutting a page into tiles at full resolution beside the whole view reads small text that a fixed resolution "
    "loses, and not because of the number of tokens.",
    notebook=NOTEBOOK,
    seeds=(0, 1, 2),
    # Chosen on the development split with the row `anyres` alone (ablations/LOG.md).
    base=replace(IMAGE_BASE, images="pages:reading", image_size=64, stride=8, num_images=6000, steps=600),
    rungs=(
        Rung(
            name="cpu",
            description="a small rung: EfficientNet-Lite0, frozen, and a character language model of 1.3M parameters, "
            "trained; rendered pages of 128 pixels seen through 64, two CPU cores; not the paper's scale",
        ),
        # The benchmarks of the paper's table want open answers; here the same question is asked of rendered pages.
        *without("test_source", images="pages:words", num_test=1200),
    ),
    rows=(
        Row(key="fixed", label="Fixed resolution", changes={}),
        Row(key="anyres", label="AnyRes, four tiles", changes={"max_tiles": 4}, cost=4),
        Row(key="fixed_more_tokens", label="Fixed resolution, every patch", changes={"pool_size": 1}, cost=3),
        Row(
            key="anyres_fewer_tokens",
            label="AnyRes, four tiles, pooled twice",
            changes={"max_tiles": 4, "pool_size": 4},
        ),
    ),
    columns=(ACCURACY, *COSTS),
    reported=reported(
        "table_9",
        {"fixed": "Baseline", "anyres": "AnyRes"},
        columns=("DocVQA", "InfographicVQA", "OCRBench"),
    ),
    trial=Trial(parameter="steps", values=(2, 22), changes={"warmup_steps": 0}),
    golden=IMAGE_GOLDEN,
)

# Fixed before any test result was seen: a difference of less than two points of accuracy is taken for none.
contrasts = (
    Comparison(label="the paper's claim", baseline="fixed", candidate="anyres", smallest_effect=0.02),
    Comparison(
        label="with fewer tokens than the fixed resolution that keeps every patch",
        baseline="fixed_more_tokens",
        candidate="anyres_fewer_tokens",
        smallest_effect=0.02,
    ),
    Comparison(label="more tokens alone", baseline="fixed", candidate="fixed_more_tokens", smallest_effect=0.02),
)
