"""What a projector makes of an utterance: sound, spectrogram, encoder features and tokens on one time axis.

Sections 3.1 and 4.5 of the paper, figures 5 and 6 (Conv-GMLP and its downsample rate). Shown of cells that were run:
their projector's weights, and what the model understood. Axes: `frames` (of 20 ms), `windows` (a token each, n frames
wide), `hidden_size`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets
import jiwer
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray
from safetensors.torch import load_file

from lab import paths
from lab.data.sample import Sample
from lab.data.speech.audio import SAMPLING_RATE
from lab.errors import LabError, choose
from lab.explore.html import table, text
from lab.explore.panel import Panel, Playable, Shown
from lab.paper.comparisons import rows_by_rate
from lab.paper.style import GREY, STYLES
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.audio_projectors import AudioProjector
from lab.study.ablation import Ablation
from lab.study.results import load_results, load_utterances
from lab.training.cell import cell_audio_projector, heard_data
from lab.training.named_parts import open_audio_encoder
from lab.training.parameters import SpeechParameters
from lab.training.samples import SampleExamples

FRAMES_PER_SECOND = 50.0
MAX_ROWS_OF_TOKENS = 64  # of the language model's width, drawn
WEIGHTS = "projector.safetensors"
MEASURED = ("test", "out_of_domain")


@dataclass(frozen=True, kw_only=True)
class Projected:
    """An utterance through one cell's projector."""

    waveform: Float[ndarray, " samples"]
    mel: Float[ndarray, "mels mel_frames"]
    features: Float[ndarray, "frames features"]
    tokens: Float[ndarray, "windows hidden_size"]
    downsample_rate: int

    def window_seconds(self) -> list[tuple[float, float]]:
        """From when to when each token has heard; the last one's window may reach behind the end."""
        width = self.downsample_rate / FRAMES_PER_SECOND
        return [(i * width, (i + 1) * width) for i in range(len(self.tokens))]


class StudiedCells:
    """The cells of a study of audio projectors that were run here, one seed of each row, and the utterances they heard.

    Args:
        ablation: a study of audio projectors.
        rung: one of its rungs.
        seed: whose cells are shown.

    Raises:
        LabError: nothing of it was run on this machine, or with code that kept no weights.
    """

    def __init__(self, ablation: Ablation, rung: str, *, seed: int = 0) -> None:
        self.ablation, self.rung, self.seed = ablation, rung, seed
        lines = load_results(ablation, rung)
        lines = lines[lines["seed"] == seed]
        if lines.empty:
            raise LabError(f"seed {seed} of {ablation.name!r} was not run at rung {rung!r}; run it, or choose another")
        self._runs = dict(zip(lines["row"], lines["run_id"], strict=True))
        self.results = lines.set_index("row")
        frame = load_utterances(ablation, rung, list(self._runs))
        frame = frame[(frame["seed"] == seed) & (frame["split"] == "test")]
        self.answers: pd.DataFrame = frame.set_index(["source", "row", "id"])
        parameters = self.parameters(next(iter(self._runs)))
        self.encoder: AudioEncoder = open_audio_encoder(parameters.audio_encoder, window=parameters.encoder_window)
        data = heard_data(parameters, self.encoder)
        self.tests: dict[str, SampleExamples] = {data[name].name: data[name] for name in MEASURED if name in data}

    @property
    def rows(self) -> list[str]:
        """Those that were run."""
        return list(self._runs)

    def parameters(self, row: str) -> SpeechParameters:
        """All parameters of a row's cell.

        Raises:
            LabError: the study is none of speech.
        """
        parameters = self.ablation.resolve(row, self.rung, self.seed)
        if not isinstance(parameters, SpeechParameters):
            raise LabError(f"{self.ablation.name!r} is no study of audio projectors")
        return parameters

    def projector(self, row: str) -> tuple[AudioProjector, Mapping[str, torch.Tensor]]:
        """A row's trained projector, and the statistics that its features are standardised by.

        Raises:
            LabError: its weights are not on this machine.
        """
        path = paths.mlruns_dir() / "artifacts" / self._runs[row] / "artifacts" / WEIGHTS
        if not path.exists():
            raise LabError(f"row {row!r} has no weights here ({path.name} of run {self._runs[row]}); run it again")
        weights = {name: tensor.float() for name, tensor in load_file(path).items()}
        statistics = {name: weights.pop(name) for name in ("feature_mean", "feature_std")}
        output_size = int(weights.pop("output_size"))
        projector = cell_audio_projector(self.parameters(row), self.encoder.hidden_size, output_size)
        projector.load_state_dict(weights)
        return projector.eval(), statistics

    def utterance(self, corpus: str, key: str) -> Sample:
        """A test utterance by its corpus and id.

        Raises:
            LabError: there is none.
        """
        for one in choose(self.tests, corpus, "corpus").samples:
            if one.id == key:
                return one
        raise LabError(f"{key!r} is no test utterance of {corpus}; their ids are those of its test split")

    @lru_cache(maxsize=8)  # noqa: B019  # lives as long as the notebook that holds it
    def _encoded(self, corpus: str, key: str) -> tuple[ndarray, ndarray, ndarray]:
        waveform = self.utterance(corpus, key).sound.read()
        mel, _ = self.encoder.front_end([waveform])
        return waveform, mel[0].numpy(), self.encoder.encode([waveform])[0]

    @torch.no_grad()
    def heard(self, row: str, corpus: str, key: str) -> Projected:
        """A test utterance of a corpus through a row's projector.

        Raises:
            LabError: as `projector` and `utterance`.
        """
        projector, statistics = self.projector(row)
        waveform, mel, features = self._encoded(corpus, key)
        standard = (torch.from_numpy(features) - statistics["feature_mean"]) / statistics["feature_std"]
        tokens, lengths = projector(standard[None], torch.tensor([len(features)]))
        return Projected(
            waveform=waveform,
            mel=mel,
            features=standard.numpy(),
            tokens=tokens[0, : int(lengths[0])].numpy(),
            downsample_rate=projector.downsample_rate,
        )


def projectors_panel(cells: StudiedCells) -> Panel:
    """Choose corpus, utterance, projector and rate: listen, look, and read what was understood."""
    rows = rows_by_rate(cells.ablation, cells.rung, cells.rows)

    def show(corpus: str, utterance: str, projector: str, rate: int) -> list[Shown]:
        if (row := rows[projector].get(rate)) is None:
            had = ", ".join(map(str, sorted(rows[projector])))
            raise LabError(f"{projector} was run at n = {had} with seed {cells.seed}, and not at {rate}")
        heard = cells.heard(row, corpus, utterance)
        answer = cells.answers.loc[(corpus, row, utterance)]
        return [
            Playable(heard.waveform, SAMPLING_RATE, caption=cells.utterance(corpus, utterance).answer),
            coloured_errors(answer["answer_normalized"], answer["given_normalized"]),
            _draw(heard),
            costs_table(cells, row),
        ]

    def said(corpus: str) -> list[tuple[str, str]]:
        return [(one.answer[:80], one.id) for one in cells.tests[corpus].samples]

    corpus = ipywidgets.Dropdown(options=list(cells.tests), description="corpus")
    utterance = ipywidgets.Dropdown(options=said(corpus.value), description="utterance")
    # Before the panel looks: an utterance of the corpus before is none of this one.
    corpus.observe(lambda change: setattr(utterance, "options", said(change["new"])), names="value")
    rates = sorted({rate for own in rows.values() for rate in own})
    return Panel(
        {
            "corpus": corpus,
            "utterance": utterance,
            "projector": ipywidgets.Dropdown(options=list(rows), description="projector"),
            "rate": ipywidgets.Dropdown(options=[(f"n = {rate}", rate) for rate in rates], description="rate"),
        },
        show,
    )


def coloured_errors(reference: str, hypothesis: str) -> str:
    """Both texts as HTML, letters that differ coloured: deleted or said otherwise above, inserted or heard below."""
    (chunks,) = jiwer.process_characters(reference, hypothesis).alignments

    def marked(words: str, spans: Sequence[tuple[int, int, bool]], colour: str) -> str:
        style = f"background:{colour};color:white"
        return "".join(
            text(words[begin:end]) if equal else f"<span style='{style}'>{text(words[begin:end])}</span>"
            for begin, end, equal in spans
            if end > begin
        )

    above = [(chunk.ref_start_idx, chunk.ref_end_idx, chunk.type == "equal") for chunk in chunks]
    below = [(chunk.hyp_start_idx, chunk.hyp_end_idx, chunk.type == "equal") for chunk in chunks]
    return (
        f"<pre>said        {marked(reference, above, STYLES[0].colour)}\n"
        f"understood  {marked(hypothesis, below, STYLES[3].colour)}</pre>"
    )


def costs_table(cells: StudiedCells, chosen: str) -> str:
    """Every row's columns of the study's table for this seed, the chosen one marked."""
    columns = [column for column in cells.ablation.columns if column.metric in cells.results]
    return table(
        {
            "": "▸" if row == chosen else "",
            "row": cells.ablation.row(row).label,
            **{
                f"{column.label} ({column.unit})": f"{cells.results.loc[row, column.metric] * column.scale:.3g}"
                for column in columns
            },
        }
        for row in cells.rows
    )


def _draw(heard: Projected) -> Figure:
    figure = Figure(figsize=(9.5, 6.5), layout="constrained")
    seconds = len(heard.waveform) / SAMPLING_RATE
    waveform, mel, features, tokens = figure.subplots(4, 1, sharex=True, height_ratios=(1, 1.4, 1.4, 1.4))
    waveform.plot(np.arange(len(heard.waveform)) / SAMPLING_RATE, heard.waveform, color=GREY, linewidth=0.4)
    waveform.set(title="waveform", yticks=[])
    shown = round(seconds * 2 * FRAMES_PER_SECOND)  # the front end pads behind the end; mel frames are 10 ms
    extent = (0.0, seconds, 0.0, 1.0)
    mel.imshow(heard.mel[:, :shown], aspect="auto", origin="lower", extent=extent, cmap="magma")
    mel.set(title=f"log-mel, {len(heard.mel)} bands", yticks=[])
    length = len(heard.features) / FRAMES_PER_SECOND
    bound = {"vmin": -3.0, "vmax": 3.0, "cmap": "RdBu_r", "aspect": "auto", "interpolation": "nearest"}
    features.imshow(heard.features.T, extent=(0.0, length, 0.0, 1.0), **bound)
    features.set(title=f"encoder: {len(heard.features)} frames of {heard.features.shape[1]} features", yticks=[])
    spans = heard.window_seconds()
    for _, end in spans[:-1]:
        features.axvline(end, color="black", linewidth=0.3)
    scale = max(float(np.std(heard.tokens)), 1e-9)
    picture = heard.tokens[:, :MAX_ROWS_OF_TOKENS].T / scale
    tokens.imshow(picture, extent=(0.0, spans[-1][1], 0.0, 1.0), **bound)
    for _, end in spans[:-1]:
        tokens.axvline(end, color="black", linewidth=0.3)
    title = f"projector: {len(heard.tokens)} tokens, {heard.downsample_rate} frames each"
    tokens.set(title=title, yticks=[], xlabel="seconds", xlim=(0.0, max(seconds, spans[-1][1])))
    for axes in (waveform, mel, features, tokens):
        axes.grid(False)
    return figure
