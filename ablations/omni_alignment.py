"""The sixth stage of the Baichuan-Omni report: after the branches, images, video and audio mixed, all parts trained.

The paper says that it follows the three branches; it reports no model without it. Rows start from the same branches,
which cells of one seed share, and have equally many steps, and so equally many tokens: what is trained on alone has a
third of them for each branch. Spoken questions about pictures need ear and eye at once.
"""

from collections.abc import Mapping

from ablations._omni import (
    ALIGNMENT,
    BASE,
    BRANCHES,
    COLUMNS,
    ENCODERS,
    GOLDEN,
    GPU,
    NOTEBOOK,
    PAPER_RATES,
    SMALL_RATES,
    accuracy,
    rungs,
)
from lab.paper.claims import Comparison
from lab.study.ablation import Ablation, Reported, Row, Trial

_SHARE = ALIGNMENT["share"]
_BEFORE = sum(stage["share"] for stage in BRANCHES.values())


def after_branches(**stage: object) -> dict[str, object]:
    """The branches, and the sixth stage as it is told."""
    return {"stages": {**BRANCHES, "omni_alignment": {**ALIGNMENT, **stage}}}


ALONE = {
    "image_alone": ("Images alone, a third of the steps", {"image_text": 1.0}),
    "video_alone": ("Video alone, a third of the steps", {"video_text": 1.0}),
    "audio_alone": ("Audio alone, a third of the steps", {"audio_text": 1.0}),
}


def with_controls(tests: Mapping[str, str], descriptions: str) -> dict[str, str]:
    """The tests with what needs eye and ear at once: of questions and of answers a quarter of which is heard."""
    spoken, quarters = tests["spoken"], f"quarters:{tests['spoken'].split(':')[1]}:{descriptions}"
    return {
        **tests,
        "spoken_picture_swapped": f"swapped:image:{spoken}",
        "spoken_sound_swapped": f"swapped:audio:{spoken}",
        "spoken_nothing": f"lacking:audio+image:{spoken}",
        "quarters": quarters,
        "quarters_swapped": f"swapped:image:{quarters}",
    }


_CPU = {"num_between": 0, "learning_rates": dict(SMALL_RATES), "tests": with_controls(BASE.tests, "descriptions")}
_HUB = {
    "learning_rates": dict(PAPER_RATES),
    "tests": with_controls(GPU["tests"], GPU["data"]["captions"]),
}

ablation = Ablation(
    name="omni_alignment",
    paper="Baichuan-Omni technical report (arXiv 2410.08565), section 3, figure 4",
    claim="Joint training on images, video and audio after the branches answers what needs eye and ear at once, costs "
    "no modality more than two points, and keeps text.",
    notebook=NOTEBOOK,
    seeds=(0, 1, 2),
    base=BASE,
    rungs=rungs(_CPU, **_HUB),
    rows=(
        Row(key="joint", label="Joint: all mixed after the branches, all trained", changes=after_branches()),
        *(
            Row(key=key, label=f"Control: {label}", changes=after_branches(share=_SHARE / 3, data=data))
            for key, (label, data) in ALONE.items()
        ),
        Row(
            key="from_start",
            label="Control: all mixed from the start, no branches",
            changes={"stages": {"omni_alignment": {**ALIGNMENT, "share": _SHARE + _BEFORE}}},
            cost=4.0,
        ),
        Row(
            key="projectors_only",
            label="Control: joint, the projectors alone trained",
            # Text alone passes through no projector, so it would train nothing.
            changes=after_branches(
                frozen=[*ENCODERS, "language_model"],
                data={kind: share for kind, share in ALIGNMENT["data"].items() if kind != "pure_text"},
            ),
        ),
        Row(key="branches", label="Baseline: the branches, no further training", changes={"stages": dict(BRANCHES)}),
    ),
    columns=(
        accuracy("spoken", "spoken questions about pictures"),
        *(column for column in COLUMNS if column.test != "spoken"),
        accuracy("spoken_picture_swapped", "spoken, picture swapped"),
        accuracy("spoken_sound_swapped", "spoken, question swapped"),
        accuracy("spoken_nothing", "spoken, nothing given"),
    ),
    reported=(Reported(row="joint", metric="spoken_accuracy", value=None, source="not found"),),
    trial=Trial(parameter="steps", values=(20, 60), changes={"warmup_steps": 0}),
    golden=GOLDEN,
)


def _against(row: str, test: str, label: str, metric: str = "error_rate", effect: float = 0.02) -> Comparison:
    return Comparison(label=label, baseline=row, candidate="joint", smallest_effect=effect, test=test, metric=metric)


# Fixed before any row was run, after a trial of the joint stage on another seed (the log, of `baichuan_omni`). A
# difference of less than two points is taken for none.
contrasts = (
    _against("branches", "spoken", "eye and ear at once: joint against the branches"),
    _against("projectors_only", "spoken", "eye and ear at once: against the projectors alone"),
    _against("from_start", "spoken", "eye and ear at once: against mixed from the start"),
    _against("image_alone", "pictures", "pictures: against images alone"),
    _against("video_alone", "video", "video: against video alone"),
    _against("audio_alone", "speech", "speech: against audio alone", "character_error_rate"),
    _against("branches", "text", "text: against the branches"),
)
