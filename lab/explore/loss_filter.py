"""Loss filters by hand: slide the threshold, see the fit and what falls off, read and hear it, keep a choice as a row.

Section 3 of the paper (the filter of the fine-tuning data, and prompts spoken by many timbres). Samples come with the
losses that filters read: of a study that was run, or of a folder that `lab score` wrote.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM, Losses, filter_losses, loss_bounds, loss_files
from lab.data.instructions.instructions import read_instructions
from lab.data.sample import Sample
from lab.data.sources import is_source, open_samples
from lab.data.speech.spoken_prompts import Speakers, timbres
from lab.data.video import PAPER_SIGHT, Sight
from lab.errors import LabError
from lab.explore.panel import Panel, Shown, slider
from lab.explore.shown import media, sound, table, text
from lab.paper.row_figure import CLEAN, draw_losses
from lab.study.ablation import Ablation, free_key, load_ablation, save_own_row
from lab.study.results import load_utterances
from lab.training.parameters import PictureTuningParameters

OF_PICTURES = "loss_filter_images"
"""The study whose model `lab score --images` scores with; behind its examples stand those that are scored."""
MAX_SPOKEN = 300
"""Letters of a prompt that are spoken: half a minute is enough to tell what it is."""


@dataclass(frozen=True, kw_only=True)
class ScoredSamples:
    """Samples with the losses of their answers.

    `frame` has `id`, `asked`, `answer`, `loss` and `loss_without_prompt` (nats a token; NaN where it was not measured),
    and `fault` where it is known what was planted (`CLEAN` for nothing).
    """

    frame: pd.DataFrame
    seen: Mapping[str, Sample] = field(default_factory=dict)
    """By id, where they are about pictures; their questions are the clean ones."""
    sight: Sight = PAPER_SIGHT


def samples_of_study(ablation: Ablation, rung: str) -> ScoredSamples:
    """What the cells of a loss-filter study chose from, out of any finished cell's own table."""
    frame = load_utterances(ablation, rung)
    frame = frame[frame["split"] == "train"]
    row = frame["row"].iloc[0]
    frame = frame[(frame["row"] == row) & (frame["seed"] == frame["seed"].iloc[0])].reset_index(drop=True)
    parameters = ablation.resolve(row, rung)
    if isinstance(parameters, PictureTuningParameters):
        seen = _samples_by_id(parameters.images, parameters, len(frame))
        return ScoredSamples(frame=frame, seen=seen, sight=Sight(frame_size=parameters.frame_size))
    return ScoredSamples(frame=frame)


def samples_of_scoring(folder: Path, source: str) -> ScoredSamples:
    """What `lab score SOURCE --out FOLDER` wrote, with the source's texts again, and with `--images` its pictures."""
    frame = pq.read_table(loss_files(folder)).to_pandas()
    parameters: Any = load_ablation(OF_PICTURES).base
    seen = _samples_by_id(source, parameters, len(frame)) if is_source(source) else {}
    by_id = seen or {one.id: one for one in read_instructions(source).samples}
    if missing := [key for key in frame["id"] if key not in by_id]:
        raise LabError(f"{source!r} has no sample {missing[0]!r}, which was scored in {folder}; name its own source")
    frame["asked"] = [by_id[key].asked for key in frame["id"]]
    frame["answer"] = [by_id[key].answer for key in frame["id"]]
    return ScoredSamples(frame=frame, seen=seen, sight=Sight(frame_size=parameters.frame_size))


def _samples_by_id(source: str, parameters: PictureTuningParameters, count: int) -> dict[str, Sample]:
    """Those of a source that may have been scored; nothing is drawn before it is looked at."""
    wanted = parameters.num_pretraining + max(parameters.num_training, count)
    samples, _ = open_samples(source, "train", wanted)
    return {sample.id: sample for sample in samples}


def loss_filter_panel(samples: ScoredSamples, *, num_shown: int = 8) -> Panel:
    """Choose a filter and its k, and read what it keeps and drops, `num_shown` at once, those nearest a bound first.

    Where planted faults are known, precision and recall of the removal are shown.
    """
    frame = samples.frame
    without = frame["loss_without_prompt"].to_numpy(np.float64)
    losses = Losses(frame["id"].tolist(), frame["loss"].to_numpy(), None if np.isnan(without).any() else without)
    kinds = frame["fault"].tolist() if "fault" in frame else ["all"] * len(frame)

    def show(loss_filter: str, k: float, read: str, hear: bool) -> list[Shown]:
        chosen = filter_losses(losses, loss_filter, k=k)
        account = f"<p>{text(chosen)}</p>"
        if "fault" in frame:
            faulty = (frame["fault"] != CLEAN).to_numpy()
            found = int((faulty & ~chosen.keep).sum())
            account += (
                f"<p>{found} of {chosen.num_dropped} dropped are faulty (precision), {found} of {int(faulty.sum())} "
                "faulty are dropped (recall)</p>"
            )
        # Only of a filter that judges the loss itself do the bounds lie on the axis of losses.
        bounds = loss_bounds(losses, loss_filter, k=k)
        drawn = {"log_gaussian": tuple(np.exp(bounds)), "ifd": (), RANDOM: (), "none": ()}.get(loss_filter, bounds)
        figure = Figure(figsize=(9.5, 3.2), layout="constrained")
        draw_losses(figure, losses.losses, chosen.keep, [bound for bound in drawn if np.isfinite(bound)], kinds)
        return [account, figure, _samples(samples, chosen.keep, read, num_shown, hear=hear)]

    controls = {
        "loss_filter": ipywidgets.Dropdown(options=[*LOSS_FILTERS, RANDOM], value="gaussian", description="filter"),
        "k": slider("k (sigma)", 1.0, 0.0, 4.0, 0.05),
        "read": ipywidgets.Dropdown(options=["dropped below", "dropped above", "kept"], description="read"),
        "hear": ipywidgets.Checkbox(description="hear the prompts", indent=False),
    }
    return Panel(controls, show)


def _samples(samples: ScoredSamples, keep: np.ndarray, read: str, num_shown: int, *, hear: bool) -> str:
    frame = samples.frame
    middle = frame["loss"].median()
    wanted = {
        "kept": keep,
        "dropped below": ~keep & (frame["loss"] < middle),
        "dropped above": ~keep & (frame["loss"] >= middle),
    }
    there = frame[wanted[read]]
    # Nearest to the middle first: where a threshold is argued about.
    order = (there["loss"] - middle).abs().to_numpy().argsort(kind="stable")
    nearest = there.iloc[order[::-1] if read == "kept" else order][:num_shown]
    rows = []
    for one in nearest.to_dict("records"):
        row = {"loss": f"{one['loss']:.2f}"}
        if samples.seen:
            row["picture"] = media(samples.seen[one["id"]].content, samples.sight)
        if hear:
            row["spoken"] = _spoken(one["id"], one["asked"])
        row |= {"prompt": one["asked"], "answer": one["answer"]}
        if "fault" in one:
            row["planted"] = one["fault"].replace("_", " ")
        rows.append(row)
    return f"<p>{text(read)}: {len(there)}, of which those next to the bound</p>{table(rows)}"


def _spoken(key: str, prompt: str) -> str:
    """A player of the prompt, or why it cannot be spoken."""
    try:
        return sound(Speakers(timbres("en")).say(key, prompt[:MAX_SPOKEN]).read())
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
