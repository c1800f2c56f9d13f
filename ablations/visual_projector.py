"""The visual projectors of the Baichuan-Omni report: every patch, mean pooling, joined patches, C-Abstractor.

The paper gives the order alone: MLP, which keeps every patch, before mean pooling, the one chosen, before joined
patches, before C-Abstractor. Accuracy is set against the tokens that it costs.
"""

from ablations._vision import ACCURACY, COSTS, IMAGE_BASE, IMAGE_CPU, IMAGE_GOLDEN, IMAGE_RUNGS, NOTEBOOK
from lab.paper.claims import Comparison
from lab.paper.ledger.cells import reported
from lab.study.ablation import Ablation, Row, Rung, Trial

LABELS = {
    "mean_pool": "Mean pooling + MLP (the paper's)",
    "mlp": "MLP, every patch",
    "concat": "Patches joined + MLP",
    "c_abstractor": "C-Abstractor",
}

ablation = Ablation(
    name="visual_projector",
    paper="Baichuan-Omni technical report (arXiv 2410.08565), section 4.5, visual projector",
    claim="An MLP over every patch answers best, mean pooling loses little with a quarter of its tokens, joining "
    "patches loses more and C-Abstractor most.",
    notebook=NOTEBOOK,
    seeds=(0, 1, 2),
    base=IMAGE_BASE,
    rungs=(Rung(name="cpu", description=IMAGE_CPU), *IMAGE_RUNGS),
    rows=tuple(
        Row(key=name, label=label, changes={"projector": name}, cost=1.5 if name == "mlp" else 1.0)
        for name, label in LABELS.items()
    ),
    columns=(ACCURACY, *COSTS),
    reported=reported(
        "visual_projector",
        {
            "mean_pool": "Mean Pool (182 tokens)",
            "mlp": "MLP (729 tokens)",
            "concat": "Concat",
            "c_abstractor": "C-Abs",
        },
        columns="Every column",
    ),
    trial=Trial(parameter="steps", values=(2, 22), changes={"warmup_steps": 0}),
    golden=IMAGE_GOLDEN,
)

# Fixed before any test result was seen: a difference of less than two points of accuracy is taken for none.
contrasts = tuple(
    Comparison(label=label, baseline=baseline, candidate=candidate, smallest_effect=0.02)
    for label, baseline, candidate in (
        ("every patch against mean pooling", "mean_pool", "mlp"),
        ("mean pooling against joined patches", "concat", "mean_pool"),
        ("joined patches against C-Abstractor", "c_abstractor", "concat"),
    )
)
