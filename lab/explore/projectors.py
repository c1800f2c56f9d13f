"""What a projector makes of an utterance: sound, spectrogram, encoder features and tokens on one time axis.

Sections 3.1 and 4.5 of the paper, figures 5 and 6 (Conv-GMLP and its downsample rate). Shown of cells that were run:
their projector out of the model that each kept, and what the model understood. Axes: `frames` (of 20 ms), `windows` (a
token each, n frames wide), `hidden_size`.
"""

from dataclasses import dataclass
from functools import lru_cache

import ipywidgets
import jiwer
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray

from lab.data.sample import Sample
from lab.data.speech.audio import SAMPLING_RATE
from lab.errors import LabError, choose
from lab.explore.panel import Panel, Shown
from lab.explore.shown import sound, text
from lab.paper.style import GREY
from lab.paper.tables import rows_by_rate
from lab.parts.media_tokens import AudioTokens
from lab.parts.saved_model import load_part
from lab.study.ablation import Ablation
from lab.study.results import load_results, load_utterances, summary
from lab.study.store import MODEL, artifact
from lab.training.cell import heard_data
from lab.training.named_parts import open_audio_encoder
from lab.training.parameters import SpeechParameters

FRAMES_PER_SECOND = 50.0
MAX_ROWS_OF_TOKENS = 64  # of the language model's width, drawn
MEASURED = ("test", "out_of_domain")


@dataclass(frozen=True, kw_only=True)
class Projected:
    """An utterance through one cell's projector; features are standardised."""

    waveform: Float[ndarray, " samples"]
    mel: Float[ndarray, "mels mel_frames"]
    features: Float[ndarray, "frames features"]
    tokens: Float[ndarray, "windows hidden_size"]
    downsample_rate: int


class StudiedCells:
    """The cells of a study of audio projectors that were run here, one seed a row, and the utterances they heard."""

    def __init__(self, ablation: Ablation, rung: str, *, seed: int = 0) -> None:
        self.ablation, self.rung, self.seed = ablation, rung, seed
        lines = load_results(ablation, rung)
        lines = lines[lines["seed"] == seed]
        if lines.empty:
            raise LabError(f"seed {seed} of {ablation.name!r} was not run at rung {rung!r}; run it, or choose another")
        self._runs = dict(zip(lines["row"], lines["run_id"], strict=True))
        frame = load_utterances(ablation, rung, self.rows)
        frame = frame[(frame["seed"] == seed) & (frame["split"] == "test")]
        self.answers = frame.set_index(["source", "row", "id"])
        parameters = ablation.resolve(self.rows[0], rung, seed)
        if not isinstance(parameters, SpeechParameters):
            raise LabError(f"{ablation.name!r} is no study of audio projectors")
        self.encoder = open_audio_encoder(parameters.audio_encoder, window=parameters.encoder_window)
        data = heard_data(parameters, self.encoder)
        self.tests: dict[str, dict[str, Sample]] = {
            data[name].name: {one.id: one for one in data[name].samples} for name in MEASURED if name in data
        }

    @property
    def rows(self) -> list[str]:
        """Those that were run."""
        return list(self._runs)

    def projector(self, row: str) -> AudioTokens:
        """A row's trained projector, with the statistics that its features are standardised by."""
        folder = artifact(self._runs[row], MODEL)
        if not folder.is_dir():
            raise LabError(f"row {row!r} has no weights here ({folder} is missing); run it again")
        tokens: AudioTokens = load_part(folder, "audio_projector")
        return tokens.eval()

    @lru_cache(maxsize=8)  # noqa: B019  # lives as long as the notebook that holds it
    def _encoded(self, corpus: str, key: str) -> tuple[ndarray, ndarray, ndarray]:
        waveform = choose(choose(self.tests, corpus, "corpus"), key, f"test utterance of {corpus}:").sound.read()
        mel, _ = self.encoder.front_end([waveform])
        return waveform, mel[0].numpy(), self.encoder.encode(waveform)

    @torch.no_grad()
    def heard(self, row: str, corpus: str, key: str) -> Projected:
        """A test utterance of a corpus through a row's projector."""
        made = self.projector(row)
        waveform, mel, features = self._encoded(corpus, key)
        (tokens,) = made(torch.from_numpy(features)[None], torch.tensor([len(features)]))
        return Projected(
            waveform=waveform,
            mel=mel,
            features=(features - made.feature_mean.numpy()) / made.feature_std.numpy(),
            tokens=tokens.numpy(),
            downsample_rate=made.projector.downsample_rate,
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
        errors = jiwer.process_characters(answer["answer_normalized"], answer["given_normalized"])
        return [
            sound(heard.waveform, cells.tests[corpus][utterance].answer),
            f"<pre>{text(jiwer.visualize_alignment(errors, show_measures=False))}</pre>",
            _draw(heard),
            summary(cells.ablation, cells.rung).to_html(float_format="{:.4g}".format),
        ]

    def said(corpus: str) -> list[tuple[str, str]]:
        return [(one.answer[:80], key) for key, one in cells.tests[corpus].items()]

    corpus = ipywidgets.Dropdown(options=list(cells.tests), description="corpus")
    utterance = ipywidgets.Dropdown(options=said(corpus.value), description="utterance")
    # Before the panel looks: an utterance of the corpus before is none of this one.
    corpus.observe(lambda change: setattr(utterance, "options", said(change["new"])), names="value")
    rates = sorted({rate for own in rows.values() for rate in own})
    controls = {
        "corpus": corpus,
        "utterance": utterance,
        "projector": ipywidgets.Dropdown(options=list(rows), description="projector"),
        "rate": ipywidgets.Dropdown(options=[(f"n = {rate}", rate) for rate in rates], description="rate"),
    }
    return Panel(controls, show)


def _draw(heard: Projected) -> Figure:
    figure = Figure(figsize=(9.5, 6.5), layout="constrained")
    seconds = len(heard.waveform) / SAMPLING_RATE
    waveform, mel, features, tokens = figure.subplots(4, 1, sharex=True, height_ratios=(1, 1.4, 1.4, 1.4))
    waveform.plot(np.arange(len(heard.waveform)) / SAMPLING_RATE, heard.waveform, color=GREY, linewidth=0.4)
    waveform.set(title="waveform", yticks=[])
    shown = round(seconds * 2 * FRAMES_PER_SECOND)  # the front end pads behind the end; mel frames are 10 ms
    mel.imshow(heard.mel[:, :shown], aspect="auto", origin="lower", extent=(0.0, seconds, 0.0, 1.0), cmap="magma")
    mel.set(title=f"log-mel, {len(heard.mel)} bands", yticks=[])
    length = len(heard.features) / FRAMES_PER_SECOND
    # From when to when each token has heard; the last one's window may reach behind the end.
    ends = np.arange(1, len(heard.tokens) + 1) * heard.downsample_rate / FRAMES_PER_SECOND
    bound = {"vmin": -3.0, "vmax": 3.0, "cmap": "RdBu_r", "aspect": "auto", "interpolation": "nearest"}
    features.imshow(heard.features.T, extent=(0.0, length, 0.0, 1.0), **bound)
    features.set(title=f"encoder: {len(heard.features)} frames of {heard.features.shape[1]} features", yticks=[])
    picture = heard.tokens[:, :MAX_ROWS_OF_TOKENS].T / max(float(np.std(heard.tokens)), 1e-9)
    tokens.imshow(picture, extent=(0.0, ends[-1], 0.0, 1.0), **bound)
    title = f"projector: {len(heard.tokens)} tokens, {heard.downsample_rate} frames each"
    tokens.set(title=title, yticks=[], xlabel="seconds", xlim=(0.0, max(seconds, ends[-1])))
    for axes in (features, tokens):
        for end in ends[:-1]:
            axes.axvline(end, color="black", linewidth=0.3)
    for axes in (waveform, mel, features, tokens):
        axes.grid(False)
    return figure
