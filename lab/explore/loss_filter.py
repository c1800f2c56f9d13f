"""Loss filters by hand: slide the threshold, see the fit and what falls off, read and hear it, keep a choice as a row.

Section 3 of the paper (the filter of the fine-tuning data, and prompts spoken by many timbres). Samples come with the
losses that filters read: of a study that was run, or of a folder that `lab score` wrote.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from numpy import ndarray

from lab.data.filters.filtering import Filtered
from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM, Losses, filter_losses, loss_bounds, loss_files
from lab.data.instructions.instructions import read_instructions
from lab.data.sample import Sample
from lab.data.sources import is_source, open_samples
from lab.data.speech.audio import SAMPLING_RATE
from lab.data.speech.spoken_prompts import Speakers, timbres
from lab.data.video import PAPER_SIGHT, Sight
from lab.errors import LabError
from lab.explore.html import media, sound, table, text
from lab.explore.panel import Panel, Shown, slider
from lab.paper.panels_beneath import CLEAN, draw_losses
from lab.study.ablation import Ablation, free_key, load_ablation, save_own_row
from lab.study.results import load_utterances
from lab.training.parameters import PictureTuningParameters

OF_PICTURES = "loss_filter_images"
"""The study whose model `lab score --images` scores with; behind its examples stand those that are scored."""


@dataclass(frozen=True, kw_only=True)
class ScoredSamples:
    """Instructions with the losses of their answers (nats a token); `faults`: what was planted, `clean` for nothing."""

    ids: Sequence[str]
    prompts: Sequence[str]
    answers: Sequence[str]
    losses: Float[ndarray, " samples"]
    losses_without_prompt: Float[ndarray, " samples"] | None = None
    faults: Sequence[str] | None = None
    seen: Sequence[Sample] | None = None
    """The samples with their pictures, where they have some; their questions are the clean ones."""
    sight: Sight = PAPER_SIGHT

    def judged(self) -> Losses:
        """As filters read them."""
        return Losses(self.ids, self.losses, self.losses_without_prompt)


def samples_of_study(ablation: Ablation, rung: str) -> ScoredSamples:
    """What the cells of a loss-filter study chose from, out of any finished cell's own table.

    Raises:
        LabError: no cell has been run on this machine.
    """
    frame = load_utterances(ablation, rung)
    frame = frame[frame["split"] == "train"]
    row = frame["row"].iloc[0]
    first = frame[(frame["row"] == row) & (frame["seed"] == frame["seed"].iloc[0])]
    parameters = ablation.resolve(row, rung)
    without = first["loss_without_prompt"].to_numpy(np.float64)
    ids = first["id"].tolist()
    seen: dict[str, Any] = {}
    if isinstance(parameters, PictureTuningParameters):
        seen = _seen(_samples_by_id(parameters.images, parameters, len(ids)), ids, parameters)
    return ScoredSamples(
        ids=ids,
        prompts=first["asked"].tolist(),
        answers=first["answer"].tolist(),
        losses=first["loss"].to_numpy(np.float64),
        losses_without_prompt=None if np.isnan(without).any() else without,
        faults=first["fault"].tolist(),
        **seen,
    )


def samples_of_scoring(folder: Path, source: str) -> ScoredSamples:
    """What `lab score SOURCE --out FOLDER` wrote, with the texts of the source again, and with `--images` its pictures.

    Raises:
        LabError: as `loss_files` and `read_instructions`, or a sample that the source no longer has.
    """
    scored = pq.read_table(loss_files(folder))
    ids = scored["id"].to_pylist()
    parameters: Any = load_ablation(OF_PICTURES).base
    seen: dict[str, Sample] = {}
    if is_source(source):
        seen = _samples_by_id(source, parameters, len(ids))
        by_id = seen
    else:
        by_id = {one.id: one for one in read_instructions(source).samples}
    if missing := [key for key in ids if key not in by_id]:
        raise LabError(f"{source!r} has no sample {missing[0]!r}, which was scored in {folder}; name its own source")
    without = scored["loss_without_prompt"].to_numpy().astype(np.float64)
    return ScoredSamples(
        ids=ids,
        prompts=[by_id[key].asked for key in ids],
        answers=[by_id[key].answer for key in ids],
        losses=scored["loss"].to_numpy(),
        losses_without_prompt=None if np.isnan(without).any() else without,
        **_seen(seen, ids, parameters),
    )


def _samples_by_id(source: str, parameters: PictureTuningParameters, count: int) -> dict[str, Sample]:
    """Those of a source that may have been scored; nothing is drawn before it is looked at."""
    wanted = parameters.num_pretraining + max(parameters.num_training, count)
    samples, _ = open_samples(source, "train", wanted)
    return {sample.id: sample for sample in samples}


def _seen(samples: dict[str, Sample], ids: Sequence[str], parameters: PictureTuningParameters) -> dict[str, Any]:
    if not samples:
        return {}
    return {"seen": [samples[key] for key in ids], "sight": Sight(frame_size=parameters.frame_size)}


MAX_SPOKEN = 300
"""Letters of a prompt that are spoken: half a minute is enough to tell what it is."""


def loss_filter_panel(samples: ScoredSamples, *, num_shown: int = 8) -> Panel:
    """Choose a filter and its k, and read what it keeps and drops.

    Args:
        samples: scored; where `faults` are known, precision and recall of the removal are shown.
        num_shown: samples to read at once, those nearest to a bound first.
    """
    losses = samples.judged()

    def show(loss_filter: str, k: float, read: str, hear: bool) -> list[Shown]:
        chosen = filter_losses(losses, loss_filter, k=k)
        return [
            _account(chosen, samples),
            _draw(samples, chosen, loss_bounds(losses, loss_filter, k=k), loss_filter),
            _samples(samples, chosen, read, num_shown, hear=hear),
        ]

    return Panel(
        {
            "loss_filter": ipywidgets.Dropdown(options=[*LOSS_FILTERS, RANDOM], value="gaussian", description="filter"),
            "k": slider("k (sigma)", 1.0, 0.0, 4.0, 0.05),
            "read": ipywidgets.Dropdown(options=["dropped below", "dropped above", "kept"], description="read"),
            "hear": ipywidgets.Checkbox(description="hear the prompts", indent=False),
        },
        show,
    )


def _account(chosen: Filtered, samples: ScoredSamples) -> str:
    said = f"<p>{text(chosen)}</p>"
    if samples.faults is None:
        return said
    faulty = np.array([fault != CLEAN for fault in samples.faults])
    dropped = ~chosen.keep
    found = int((faulty & dropped).sum())
    return said + (
        f"<p>{found} of {int(dropped.sum())} dropped are faulty (precision), {found} of {int(faulty.sum())} faulty are "
        f"dropped (recall)</p>"
    )


def _draw(samples: ScoredSamples, chosen: Filtered, bounds: tuple[float, float], loss_filter: str) -> Figure:
    # Only of a filter that judges the loss itself do the bounds lie on the axis of losses.
    drawn = {"log_gaussian": tuple(np.exp(bounds)), "ifd": (), RANDOM: (), "none": ()}.get(loss_filter, bounds)
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    losses, kinds = np.asarray(samples.losses), samples.faults or ["all"] * len(samples.losses)
    draw_losses(figure, losses, chosen.keep, [bound for bound in drawn if np.isfinite(bound)], kinds)
    return figure


def _samples(samples: ScoredSamples, chosen: Filtered, read: str, num_shown: int, *, hear: bool) -> str:
    losses = np.asarray(samples.losses)
    middle = float(np.median(losses))
    wanted: dict[str, Bool[ndarray, " samples"]] = {
        "kept": chosen.keep,
        "dropped below": ~chosen.keep & (losses < middle),
        "dropped above": ~chosen.keep & (losses >= middle),
    }
    there = np.flatnonzero(wanted[read])
    # Nearest to the middle first: where a threshold is argued about.
    nearest = there[np.argsort(np.abs(losses[there] - middle), kind="stable")]
    nearest = nearest[::-1] if read == "kept" else nearest
    rows: list[dict[str, Any]] = [
        {
            "loss": f"{losses[i]:.2f}",
            **({} if samples.seen is None else {"picture": media(samples.seen[i], samples.sight)}),
            **({"spoken": _spoken(samples.ids[i], samples.prompts[i])} if hear else {}),
            "prompt": samples.prompts[i],
            "answer": samples.answers[i],
            **({} if samples.faults is None else {"planted": samples.faults[i].replace("_", " ")}),
        }
        for i in nearest[:num_shown]
    ]
    return f"<p>{text(read)}: {len(there)}, of which those next to the bound</p>" + table(rows)


def _spoken(key: str, prompt: str) -> str:
    """A player of the prompt, or why it cannot be spoken."""
    try:
        return sound(Speakers(timbres("en")).say(key, prompt[:MAX_SPOKEN]).read(), SAMPLING_RATE)
    except LabError as error:
        return str(error)


def row_saver(panel: Panel, ablation_name: str) -> ipywidgets.HBox:
    """A text and a button that keep what the panel's filter and k are now as a row of the ablation.

    What came of it, or why not, stands beside them.
    """
    label = ipywidgets.Text(placeholder="what the table is to call the row", description="row")
    save, said = ipywidgets.Button(description="save as a row"), ipywidgets.HTML()

    def clicked(_: Any) -> None:
        try:
            ablation = load_ablation(ablation_name)
            changes = {name: panel.controls[name].value for name in ("loss_filter", "k")}
            changes = {name: value for name, value in changes.items() if getattr(ablation.base, name) != value}
            key = free_key(ablation, label.value)
            path = save_own_row(ablation, key, label.value, changes)
        except LabError as error:
            said.value = f"<span style='color:#D55E00'>{text(error)}</span>"
        else:
            said.value = f"in {text(path.name)}; run it: <code>lab reproduce {ablation_name} --rows {text(key)}</code>"

    save.on_click(clicked)
    return ipywidgets.HBox([label, save, said])
