"""A corpus to look at and to listen to: how long its utterances are, and some of them drawn at random.

Section 3 of the paper (the audio branch's ASR data).
"""

from collections.abc import Mapping

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from lab.data.speech.audio import SAMPLING_RATE
from lab.data.speech.corpora import Corpus
from lab.data.splits import SPLITS, Split
from lab.errors import LabError
from lab.explore.panel import Panel, Shown, slider
from lab.explore.shown import sound
from lab.paper.style import GREY, STYLES

NUM_BINS = 40


def corpora_panel(corpora: Mapping[str, Corpus], *, split: str = "test", num_listened: int = 2, seed: int = 0) -> Panel:
    """Choose a corpus (by name) and a split, and draw utterances of it, `num_listened` at once."""
    if not corpora:
        raise LabError("there is no corpus to listen to; expected one or more, by name")

    def show(corpus: str, split: Split, draw: int) -> list[Shown]:
        samples = corpora[corpus].split(split)
        if not samples:
            raise LabError(f"split {split!r} of {corpus!r} is empty; choose another")
        places = np.random.default_rng(draw).permutation(len(samples))[:num_listened]
        heard = (samples[place] for place in places)
        return [
            _draw(corpora[corpus], split),
            *(sound(one.sound.read(), f"{one.sound.speaker}: {one.answer}") for one in heard),
        ]

    controls = {
        "corpus": ipywidgets.Dropdown(options=list(corpora), description="corpus"),
        "split": ipywidgets.Dropdown(options=list(SPLITS), value=split, description="split"),
        "draw": slider("draw", seed, 0, 99),
    }
    return Panel(controls, show)


def _draw(corpus: Corpus, split: Split) -> Figure:
    every, own = (
        np.array([one.sound.num_samples / SAMPLING_RATE for one in samples])
        for samples in (corpus.samples, corpus.split(split))
    )
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0.0, float(every.max()), NUM_BINS + 1).tolist()
    axes.hist(every, bins=edges, color=GREY, alpha=0.4, label=f"all: {len(every):,}, {every.sum() / 3600:.2f} h")
    label = f"{split}: {len(own):,}, {own.sum() / 3600:.2f} h"
    axes.hist(own, bins=edges, color=STYLES[0].colour, label=label)
    axes.axvline(float(np.median(own)), color="black", linestyle="--", label=f"its median: {np.median(own):.2f} s")
    axes.set(xlabel="seconds", ylabel="utterances", yscale="symlog", title=corpus.name)
    axes.legend(fontsize="small")
    return figure
