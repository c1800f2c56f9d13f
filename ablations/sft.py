"""The seventh stage of the Baichuan-Omni report: fine-tuning on many tasks, whose data filters have cleaned.

Tables 11 and 12 have what it gives and costs, section 3 the filters; none of them is judged there against removing as
many samples at random, which is done here. All rows start from the same six stages, which cells of one seed share, and
are tuned for as many steps.
"""

from collections.abc import Sequence

from ablations._omni import (
    ALIGNMENT,
    BASE,
    BRANCHES,
    COLUMNS,
    GOLDEN,
    GPU,
    NOTEBOOK,
    PAPER_RATES,
    SMALL_RATES,
    accuracy,
    rungs,
)
from ablations._sft import TASKS, weights
from lab.paper.claims import Comparison
from lab.paper.ledger.cells import reported
from lab.study.ablation import Ablation, Row, Trial

SHARE = 0.35
# So many of each task: filters that listen hear each of them, and a run draws few of a task.
SOURCES = {name: f"first:240:{task.source}" for name, task in TASKS.items()}
WRITTEN = tuple(name for name, task in TASKS.items() if task.kind in ("text", "instructions"))
# Whose right answers are facts or sense, so that one can know them.
FACTS = ("facts", "wikidata", "situations", "goals", "sports", "colours", "beliefs", "elements", "anachronisms")
SAID = tuple(name for name, task in TASKS.items() if "spoken" in task.kind or "heard" in task.kind)
# By row: the filter, the tasks that it cleans, the row's label, and the test that it is judged by. Of eSpeak's short
# prompts a recogniser reads so few without an error that half of the words have to be right, not four of five.
FILTERS: dict[str, tuple[str, Sequence[str], str, str]] = {
    "loss": ("loss", WRITTEN, "Loss within a standard deviation (the paper's filter)", "text"),
    "known": ("known", FACTS, "Without unknown knowledge", "text"),
    "distinct": ("distinct", WRITTEN, "Instructions that mean the same once", "text"),
    "said": ("said=0.5", SAID, "Without speech that a recogniser reads otherwise", "spoken"),
    "hard": ("hard", ("speech",), "Without easy speech", "speech"),
}


def tuned(how: str = "proportional", *, told: str = "", names: Sequence[str] = ()) -> dict[str, object]:
    """All seven stages, the last on all tasks, some of them behind the filter that is told."""
    mixed = {f"kept:{told}:{name}" if name in names else name: weight for name, weight in weights(how).items()}
    return {"stages": {**BRANCHES, "omni_alignment": dict(ALIGNMENT), "sft": {"share": SHARE, "data": mixed}}}


_TESTS = {
    "pictures": "stills",
    "charts": "charts:bar,grouped_bar,stacked_bar,pie,scatter:largest,smallest,comparison",
    "pages": "pages:reading",
    "video": BASE.tests["video"],
    "events": "scenes:8-12:2-4",
    "speech": BASE.tests["speech"],
    "text": f"text:bigbench:{','.join(name for name, task in TASKS.items() if task.kind == 'text')}",
    "spoken": BASE.tests["spoken"],
}
_CPU = {
    "learning_rates": dict(SMALL_RATES),
    "data": {**BASE.data, **SOURCES},
    "tests": _TESTS,
    "num_between": 0,
}
# Tasks of packages stay; what the hub has more of comes from there.
_HUB = {
    "learning_rates": dict(PAPER_RATES),
    "data": {
        **{name: task.source for name, task in TASKS.items()},
        **GPU["data"],
        "stills": GPU["data"]["vqa"],
        "chat": GPU["data"]["pure_text"],
        "speech": GPU["data"]["asr_audio_text"],
        "spoken_stills": GPU["data"]["spoken_vqa"],
    },
    "tests": {**_TESTS, **GPU["tests"], "events": GPU["tests"]["video"]},
}
_LABELS = {
    "charts": "charts",
    "pages": "words on pages",
    "events": "events in video",
    "text": "text",
}

ablation = Ablation(
    name="sft",
    paper="Baichuan-Omni technical report (arXiv 2410.08565), section 3, tables 11 and 12",
    claim="Fine-tuning on many tasks, cleaned by the paper's filters, answers more of every kind than no fine-tuning.",
    notebook=NOTEBOOK,
    seeds=(0,),
    base=BASE,
    rungs=rungs(_CPU, **_HUB),
    rows=(
        Row(key="all", label="All tasks, drawn by their sizes (the paper's)", changes=tuned()),
        Row(
            key="none",
            label="Baseline: no fine-tuning",
            changes={"stages": {**BRANCHES, "omni_alignment": dict(ALIGNMENT)}},
        ),
        Row(key="square_root", label="Drawn by the square root of their sizes", changes=tuned("square_root")),
        Row(key="equal", label="Drawn equally", changes=tuned("equal")),
        *(
            Row(key=key, label=label, changes=tuned(told=told, names=names))
            for name, (chosen, names, filter_label, _) in FILTERS.items()
            for key, label, told in (
                (name, filter_label, chosen),
                (f"random_{name}", f"Control: as many at random as by {name!r}", f"random={chosen}"),
            )
        ),
    ),
    columns=(
        accuracy("spoken", "spoken questions about pictures"),
        *(column for column in COLUMNS if column.test != "spoken" and column.metric != "text_loss"),
        *(accuracy(test, label) for test, label in _LABELS.items()),
    ),
    reported=tuple(
        one
        for benchmark, test in {"MMBench-CN": "pictures", "ChartQA": "charts", "MVBench": "events"}.items()
        for row, when in (("none", "Before SFT"), ("all", "After SFT"))
        for one in reported("tables_11_12", {row: benchmark}, columns=when, metric=f"{test}_accuracy", note=benchmark)
    ),
    trial=Trial(parameter="steps", values=(20, 60), changes={"warmup_steps": 0}),
    golden=GOLDEN,
)


def _against(row: str, candidate: str, test: str, label: str) -> Comparison:
    metric = "character_error_rate" if test == "speech" else "error_rate"
    return Comparison(label=label, baseline=row, candidate=candidate, smallest_effect=0.02, test=test, metric=metric)


# Fixed before any row was run. A difference of less than two points is taken for none.
contrasts = (
    *(
        _against("none", "all", test, f"{label}: all tasks against no fine-tuning")
        for test, label in {**{test: test for test in ("pictures", "video", "speech", "spoken")}, **_LABELS}.items()
    ),
    *(
        _against(row, "all", "text", f"text: drawn by sizes against {told}")
        for row, told in (("square_root", "their square roots"), ("equal", "equally"))
    ),
    *(
        _against(row, name, test, f"{test}, filter {name!r}: against {told}")
        for name, (*_, test) in FILTERS.items()
        for row, told in (("all", "all data"), (f"random_{name}", "as many removed at random"))
    ),
)
