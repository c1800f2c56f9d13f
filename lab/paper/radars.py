"""The numbers behind figure 1 of the Baichuan-Omni report, both radars, from the ledger alone.

The paper scales by (x - min + 10) / (max - min + 10), least and largest over the models drawn; where lower is better
the axis is turned, (max - x + 10) / (max - min + 10), which is the same formula of -x. So the best model is at 1 and
the worst above 0, the nearer to it the further apart they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lab.errors import LabError
from lab.paper.ledger.cells import Table, table

Kind = Literal["image", "video", "audio"]
KINDS: tuple[Kind, ...] = ("image", "video", "audio")
MODELS = {
    "Baichuan-Omni": "Baichuan-Omni 7B",
    "Qwen2-VL": "Qwen2-VL 7B",
    "VITA": "VITA 8x7B",
    "Qwen2-Audio": "Qwen2-Audio-Instruct 7B",
}
"""What the curves are called, and the models' names in the tables."""

# VITA reports a CER alone on WenetSpeech; which of the two rates the paper draws is not found.
_AUDIO = {
    "WenetSpeech\nnet, CER": ("WenetSpeech test_net", "CER"),
    "WenetSpeech\nmeeting, CER": ("WenetSpeech test_meeting", "CER"),
    "Fleurs en": ("Fleurs test-en", "WER"),
    "Fleurs zh": ("Fleurs test-zh", "WER"),
    "KeSpeech, mean": ("KeSpeech, mean of the nine", "WER"),
}
_NOT_AVERAGED = "MME"  # a sum of points among percentages; without it the derived checks come out


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One axis of the left radar: what each model scored, in the printed unit; models without a value are left out."""

    label: str
    kind: Kind
    better: Literal["lower", "higher"]
    values: Mapping[str, float]

    @property
    def scaled(self) -> dict[str, float]:
        """The values as they are drawn."""
        return scaled(self.values, self.better)


def scaled(values: Mapping[str, float], better: Literal["lower", "higher"] = "higher") -> dict[str, float]:
    """Values by model on the paper's scale: 1 for the best, above 0 for the worst.

    Raises:
        LabError: there are no values.
    """
    if not values:
        raise LabError("the scale of figure 1 runs from the worst to the best value, so it needs at least one")
    sign = 1.0 if better == "higher" else -1.0
    signed = {model: sign * value for model, value in values.items()}
    low, high = min(signed.values()), max(signed.values())
    return {model: (value - low + 10) / (high - low + 10) for model, value in signed.items()}


def benchmarks() -> list[Benchmark]:
    """The axes of the left radar, in the tables' order: 13 of images, 6 of video, 5 of audio.

    Differs from the paper: it draws 11 of the 13 image benchmarks, and which they are is not found.
    """
    image = [_benchmark(table(name), column, "image") for name in ("table_2", "table_3") for column in _of(name)]
    video = [_benchmark(table("table_4"), column, "video", "top-1 accuracy") for column in _of("table_4")]
    video += [_benchmark(table("table_5"), column, "video", "accuracy") for column in _of("table_5")]
    speech = table("table_6")
    audio = [_benchmark(speech, row, "audio", metric, label) for label, (row, metric) in _AUDIO.items()]
    return [*image, *video, *audio]


def _of(name: str) -> list[str]:
    return table(name).columns


def _benchmark(source: Table, name: str, kind: Kind, metric: str = "", label: str = "") -> Benchmark:
    places = ((model, name) if source.models == "rows" else (name, model) for model in MODELS.values())
    values = {}
    better: Literal["lower", "higher"] = "higher"
    for model, (row, column) in zip(MODELS, places, strict=True):
        if row not in source.rows or column not in source.columns:
            continue
        cells = [cell for cell in source.at(row, column) if metric in ("", cell.metric)]
        # Of two values the figure has the one that the paper's authors ran, as the derived checks show.
        cell = next((cell for cell in cells if len(cells) > 1 and cell.measured_by == "authors"), cells[0])
        better = cell.better
        if cell.value is not None:
            values[model] = float(cell.value)
    return Benchmark(label=label or name, kind=kind, better=better, values=values)


def radars() -> dict[str, Any]:
    """What both radars show: the axes of the left one with the values as drawn, and the means of the right one."""
    axes = [{"label": axis.label, "kind": axis.kind, "values": axis.scaled} for axis in benchmarks()]
    return {"benchmarks": axes, "means": means()}


def means() -> dict[Kind, dict[str, float]]:
    """The axes of the right radar: benchmarks averaged first and scaled after, for models that have all of a kind.

    Images without MME, which is no percentage. The audio axis is empty: the paper's could not be reproduced, so that
    no value of it is known.
    """
    found: dict[Kind, dict[str, float]] = {"audio": {}}
    every = benchmarks()
    for kind in ("image", "video"):
        mine = [benchmark for benchmark in every if benchmark.kind == kind and benchmark.label != _NOT_AVERAGED]
        whole = [model for model in MODELS if all(model in benchmark.values for benchmark in mine)]
        found[kind] = scaled({m: sum(benchmark.values[m] for benchmark in mine) / len(mine) for m in whole})
    return {kind: found[kind] for kind in KINDS}
