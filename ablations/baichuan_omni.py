"""Figure 4 of the Baichuan-Omni report: all seven stages in one run, each from the weights of the last.

Image 1 to 3, video, audio, omni-alignment, fine-tuning, with what the paper trains and freezes in each. Two rows: the
paper's learning rates where they are found, and rates for a model as small as the `cpu` rung's.
"""

from ablations._omni import ALIGNMENT, BASE, BRANCHES, COLUMNS, GOLDEN, NOTEBOOK, PAPER_RATES, SFT, SMALL_RATES, rungs
from lab.paper.claims import Comparison
from lab.study.ablation import Ablation, Reported, Row, Trial

STAGES = {**BRANCHES, "omni_alignment": dict(ALIGNMENT), "sft": dict(SFT)}

ablation = Ablation(
    name="baichuan_omni",
    paper="Baichuan-Omni technical report (arXiv 2410.08565), section 3, figure 4",
    claim="Seven stages, each from the last one's weights, make one model that hears, sees and reads.",
    notebook=NOTEBOOK,
    seeds=(0,),
    base=BASE,
    rungs=rungs({"stages": STAGES}, stages=STAGES),
    rows=(
        Row(
            key="small_rates",
            label="Seven stages, rates for a small model",
            changes={"learning_rates": dict(SMALL_RATES)},
        ),
        Row(
            key="paper_rates",
            label="Control: the paper's learning rates where found",
            changes={"learning_rates": dict(PAPER_RATES)},
        ),
    ),
    columns=COLUMNS,
    reported=(Reported(row="paper_rates", metric="spoken_accuracy", value=None, source="not found"),),
    trial=Trial(parameter="steps", values=(20, 60), changes={"warmup_steps": 0}),
    golden=GOLDEN,
)

# Fixed before the study's own seeds were run; one trial on another seed had been looked at on test items (the log). A
# difference of less than two points is taken for none.
contrasts = tuple(
    Comparison(
        label=f"rates for a small model against the paper's, {label}",
        baseline="paper_rates",
        candidate="small_rates",
        smallest_effect=0.02,
        test=test,
        metric=metric,
    )
    for test, label, metric in (
        ("spoken", "spoken questions", "error_rate"),
        ("pictures", "pictures", "error_rate"),
        ("video", "video", "error_rate"),
        ("speech", "speech", "character_error_rate"),
    )
)
