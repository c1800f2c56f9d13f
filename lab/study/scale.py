"""What a rung of a study needs, before it is rented: parameters, tokens and memory by row, by part and by stage.

Nothing is downloaded and nothing is given memory: parts are built on the meta device from configurations
(`lab.parts.known_configurations`), and `lab.training.memory` counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.errors import LabError, choose
from lab.parts.audio_encoders import MARGIN_FRAMES
from lab.parts.audio_projectors import build_audio_projector
from lab.parts.known_configurations import known_configuration
from lab.parts.language_models import CharacterCodec
from lab.study.ablation import Ablation
from lab.study.cells import cells
from lab.training.memory import SPEECH_PARTS, Memory, speech_memory
from lab.training.pretraining import ALPHABET, PretrainingOptions, build_character_model
from lab.training.saved_bytes import PRECISIONS, Sample
from lab.training.stages import PAPER_STAGES

FRAMES_PER_SECOND = 50  # of every Whisper encoder
WINDOW_SECONDS = 30.0
ANSWER_TOKENS = 128  # ours: some four tokens a second of fast speech
_NEEDED = (
    "audio_encoder",
    "encoder_window",
    "train_encoder",
    "projector",
    "downsample_rate",
    "parameter_budget",
    "language_model",
    "prompt",
    "batch_size",
    "max_tokens",
    "precision",
)


@dataclass(frozen=True)
class Scale:
    """A rung counted: its rows, and by stage the row that needs most."""

    ablation: str
    rung: str
    parameters: Mapping[str, Any]
    sample: Sample
    precision: str
    rows: Mapping[str, Memory]
    stages: Mapping[str, Memory]
    """The stages of the paper in which all parts of the study take part, with the dearest row's projector."""
    refused: Mapping[str, str]
    """Why a row cannot be built at this rung."""

    @property
    def dearest(self) -> str:
        """The row that needs most memory."""
        return max(self.rows, key=lambda row: self.rows[row].total)


def scale(
    ablation: Ablation,
    rung: str,
    rows: str | Sequence[str] = "main",
    *,
    seconds: float = WINDOW_SECONDS,
    answer_tokens: int = ANSWER_TOKENS,
    batch_size: int | None = None,
    precision: str | None = None,
) -> Scale:
    """Count what the largest batch of each row takes: utterances of that many seconds and answer tokens.

    Args:
        ablation: a study of audio projectors.
        rung: one of its rungs.
        rows: as in `cells`.
        seconds: of audio in each utterance, at most the encoder's window.
        answer_tokens: of each answer.
        batch_size: utterances at once; the rung's own where None.
        precision: a name of `PRECISIONS`; the rung's own where None, `auto` as on a GPU (bfloat16).

    Raises:
        LabError: the study's cells are not of audio projectors, an unknown row, rung, precision or model, a length
            out of range, or no row that fits the rung.
    """
    if missing := [name for name in _NEEDED if name not in ablation.base]:
        raise LabError(f"{ablation.name!r} is no study of audio projectors: it has no parameter {missing[0]!r}")
    if not 0 < seconds <= WINDOW_SECONDS:
        raise LabError(f"seconds is {seconds:g}; expected above 0 and at most the encoder's {WINDOW_SECONDS:g}")
    chosen = {cell.row: cell.parameters for cell in cells(ablation, rung, rows)}
    shared = next(iter(chosen.values()))
    own = "bfloat16" if shared["precision"] == "auto" else shared["precision"]
    name = own if precision is None else precision
    encoder, language_model = _encoder(shared["audio_encoder"]), _language_model(shared["language_model"])
    frames = round(seconds * FRAMES_PER_SECOND)
    padded = WINDOW_SECONDS * FRAMES_PER_SECOND
    sample = Sample(
        batch_size=shared["batch_size"] if batch_size is None else batch_size,
        frames=frames,
        encoder_frames=int(padded if shared["encoder_window"] == "padded" else min(padded, frames + MARGIN_FRAMES)),
        # Without the tokenizer, which would have to be fetched: some four letters a token.
        prompt_tokens=-(-len(shared["prompt"]) // 4),
        answer_tokens=answer_tokens,
    )
    count = partial(
        speech_memory,
        encoder=encoder,
        language_model=language_model,
        sample=sample,
        precision=choose(PRECISIONS, name, "precision"),
        max_tokens=shared["max_tokens"],
    )
    widths = (encoder.config.d_model, language_model.config.hidden_size)
    trained = SPEECH_PARTS[:2] if shared["train_encoder"] else SPEECH_PARTS[1:2]
    counted: dict[str, Memory] = {}
    refused: dict[str, str] = {}
    for row, given in chosen.items():
        try:
            counted[row] = count(build_projector=_projector(given, *widths), trained=trained)
        except LabError as error:
            refused[row] = str(error)
    if not counted:
        row, reason = next(iter(refused.items()))
        raise LabError(f"row {row!r} of {ablation.name!r} does not fit rung {rung!r}: {reason}")
    found = Scale(ablation.name, rung, shared, sample, name, counted, {}, refused)
    dearest = _projector(chosen[found.dearest], *widths)
    stages = {
        stage.name: count(build_projector=dearest, trained=[part for part in SPEECH_PARTS if part in stage.trained])
        for stage in PAPER_STAGES.values()
        if set(SPEECH_PARTS) <= set(stage.parts)
    }
    return replace(found, stages=stages)


def _encoder(name: str) -> Any:
    config: Any = known_configuration(name)
    if config.model_type != "whisper":
        raise LabError(f"audio encoder {name!r} is a {config.model_type} model; expected Whisper")
    with torch.device("meta"):
        encoder = WhisperEncoder(config)
    encoder.embed_positions.requires_grad_(False)  # fixed sinusoids
    return encoder


def _language_model(name: str) -> Any:
    with torch.device("meta"):
        if name == "character":
            return build_character_model(PretrainingOptions(), CharacterCodec(alphabet=ALPHABET))
        return AutoModelForCausalLM.from_config(known_configuration(name))


def _projector(parameters: Mapping[str, Any], hidden_size: int, output_size: int) -> Callable[[], Any]:
    budget = parameters["parameter_budget"]
    return partial(
        build_audio_projector,
        parameters["projector"],
        hidden_size=hidden_size,
        output_size=output_size,
        downsample_rate=parameters["downsample_rate"],
        **({"parameter_budget": budget} if budget else {}),
    )


def table(found: Scale) -> str:
    """The scale as text for a terminal, in GB of 1e9 bytes."""
    sample, parameters = found.sample, found.parameters
    seconds = sample.frames / FRAMES_PER_SECOND
    lines = [
        f"{found.ablation}, rung {found.rung}: {parameters['audio_encoder']} and {parameters['language_model']}, "
        f"{_WORDS[found.precision]}",
        f"a step: {sample.batch_size} utterances of {seconds:g} s, each about {sample.prompt_tokens} tokens of prompt, "
        f"the projector's, 1 start and {sample.answer_tokens} of answer",
        "",
        "By row",
        *_aligned(
            ("row", "projector (M)", "tokens a sample", "trained (M)", *_SUMS),
            [
                (row, _millions(m.parts[1].parameters), str(m.tokens), _millions(_trained(m)), *_sums(m))
                for row, m in found.rows.items()
            ],
        ),
        *(f"{row} does not fit this rung: {reason}" for row, reason in found.refused.items()),
        "",
        f"By part, {found.dearest}, GB",
        *_by_part(found.rows[found.dearest]),
        "",
        f"By stage of the paper, with {found.dearest}'s projector and this batch; parts of other branches not counted",
        *_aligned(
            ("stage", *(f"{part} (M)" for part in SPEECH_PARTS), *_SUMS),
            [
                (stage, *(_millions(part.trained_parameters) for part in m.parts), *_sums(m))
                for stage, m in found.stages.items()
            ],
        ),
        "",
        "Not counted: the GPU's own context, fragmentation, workspaces. Checkpointed: what recomputing every layer of",
        "encoder and language model would leave; the training loop does not.",
    ]
    return "\n".join(lines)


_SUMS = ("kept (GB)", "total (GB)", "checkpointed (GB)")
_WORDS = {
    "float32": "float32",
    "bfloat16": "products in bfloat16, weights in float32 (autocast, as the training loop)",
    "bfloat16_weights": "weights in bfloat16, master copies and moments in float32 (not in the training loop)",
}


def _by_part(memory: Memory) -> list[str]:
    rows = [
        (
            part.name,
            _millions(part.parameters),
            _millions(part.trained_parameters),
            *map(_gigabytes, (part.weights, part.gradients, part.optimizer, part.saved.everything)),
            _gigabytes(part.saved.checkpointed),
        )
        for part in memory.parts
    ]
    again = max(part.saved.computed_again for part in memory.parts)
    rows.append(("gradient of the logits", "", "", "", "", "", _gigabytes(memory.logits), ""))
    rows.append(("that, or a layer computed again", "", "", "", "", "", "", _gigabytes(max(memory.logits, again))))
    titles = (
        "part",
        "parameters (M)",
        "trained (M)",
        "weights",
        "gradients",
        "optimiser",
        "activations",
        "checkpointed",
    )
    return _aligned(titles, rows)


def _trained(memory: Memory) -> int:
    return sum(part.trained_parameters for part in memory.parts)


def _sums(memory: Memory) -> tuple[str, ...]:
    return tuple(map(_gigabytes, (memory.kept, memory.total, memory.total_checkpointed)))


def _aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest entry; the first to the left, numbers to the right."""
    widths = [max(len(line[column]) for line in (titles, *rows)) for column in range(len(titles))]
    return [
        "  ".join(text.ljust(width) if not column else text.rjust(width) for column, (text, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in (titles, *rows))
    ]


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f}"
