"""The one model: it hears, sees and reads what is given in any order, and is trained and asked for an answer.

Sections 2 and 3 of the paper. Axes: `batch`, `tokens` (positions of a sequence), `hidden_size` (the language model's
width). A sequence is the example's content in its own order, the answer's start and the answer, padded or packed as in
`lab.parts.joined_sequences`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lab.errors import LabError, choose
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.joined_sequences import (
    AnswerLoss,
    JoinedSequence,
    PackedAnswers,
    PackedSequence,
    answer_loss,
    pack_rows,
    packed_answers,
    pad_left,
)
from lab.parts.language_models import LanguageModel
from lab.parts.media_tokens import AudioTokens, Branch, Seen, Sound, VisualTokens
from lab.parts.vision_encoders import VisionEncoder

POSITION_SCHEMES = {
    "sequential": "every token one further than the last, as transformers do by default",
    "time_aligned": "a position is an encoder frame: an audio token stands at its window's centre, and the answer "
    "begins where the last sound does, at `frames_per_token` frames a token",
}
BRANCHES: tuple[Branch, ...] = ("visual_projector", "video_projector")


@dataclass(frozen=True)
class Tokens:
    """What a projector made of a sound or of pictures; `frames_per_token` of a sound."""

    values: Float[Tensor, "tokens hidden_size"]
    frames_per_token: int | None = None


# Text is token ids.
Segment = Sequence[int] | Sound | Seen | Tokens


@dataclass(frozen=True, kw_only=True)
class Example:
    """What the model is given, in the order in which it is read, and the answer (token ids, without start and end).

    A `Sample` has seen to it that there is content; text without tokens says that nothing is asked on purpose.
    """

    content: Sequence[Segment]
    answer: Sequence[int] = ()


class OmniModel(nn.Module):
    """Encoders, projectors and the language model by the names that stages use; all but the last may be absent.

    An encoder that is frozen and whose features are computed once stays outside: then the examples hold features. What
    trains is decided by a stage (`lab.training.stages.apply_stage` on `parts()`), not here.

    Differs from the paper: time-aligned positions (Qwen2.5-Omni's TMRoPE is built on the same idea) are not described
    there. They are for language models pretrained with them: these know `frames_per_token`, and take that scheme
    unless told otherwise (`positions` is of `POSITION_SCHEMES`, or `auto`).

    Raises:
        LabError: unknown position scheme, a time-aligned one for a language model that does not know its frames, a
            projector whose tokens are not as wide as the language model's, or an encoder whose features are not as
            wide as its projector takes.
    """

    def __init__(
        self,
        *,
        language_model: LanguageModel,
        visual_projector: VisualTokens | None = None,
        video_projector: VisualTokens | None = None,
        audio_projector: AudioTokens | None = None,
        vision_encoder: VisionEncoder | None = None,
        audio_encoder: AudioEncoder | None = None,
        positions: str = "auto",
    ) -> None:
        super().__init__()
        self.visual_projector = visual_projector
        self.video_projector = video_projector
        self.audio_projector = audio_projector
        self.audio_encoder = audio_encoder
        self.vision_encoder = vision_encoder
        self.language_model: Any = language_model.model
        self.language = language_model
        self.codec = language_model.codec
        if positions == "auto":
            positions = "time_aligned" if language_model.frames_per_token else "sequential"
        choose(POSITION_SCHEMES, positions, "position scheme")
        if positions == "time_aligned" and not language_model.frames_per_token:
            raise LabError(
                f"time-aligned positions need a language model pretrained with them; {language_model.name!r} was not: "
                "choose positions 'sequential'"
            )
        self.positions = positions
        self.frames_per_token = language_model.frames_per_token or 1
        encoders = {"visual": vision_encoder, "video": vision_encoder, "audio": audio_encoder}
        for name, encoder in encoders.items():
            projector = getattr(getattr(self, f"{name}_projector"), "projector", None)
            if projector and projector.output_size != self.language.hidden_size:
                raise LabError(
                    f"the {name} projector gives tokens {projector.output_size} wide; language model "
                    f"{self.language.name!r} takes {self.language.hidden_size}"
                )
            if projector and encoder and projector.hidden_size != encoder.hidden_size:
                raise LabError(
                    f"the {name} projector takes features {projector.hidden_size} wide; its encoder gives "
                    f"{encoder.hidden_size}"
                )

    def parts(self) -> dict[str, nn.Module]:
        """The parts that are there, by name."""
        return dict(self.named_children())

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        device: torch.device = next(self.language_model.parameters()).device
        return device

    def part(self, name: str, of_what: str) -> Any:
        """A part by name, which examples that hold `of_what` need.

        Raises:
            LabError: the model lacks it.
        """
        part = getattr(self, name)
        if part is None:
            raise LabError(
                f"an example holds {of_what}, for which this model lacks its {name}; its parts are: "
                f"{', '.join(self.parts())}"
            )
        return part

    def _tokens_of(self, branch: Branch) -> VisualTokens:
        tokens: VisualTokens = self.part(branch, "pictures" if branch == "visual_projector" else "videos")
        return tokens

    def view_grid(self, branch: Branch, views: Tensor) -> tuple[int, int]:
        """Rows and columns of tokens that a branch's projector makes of one view, of features or of pixels."""
        pixels = views.dtype == torch.uint8
        grid = self.part("vision_encoder", "pixels").grid if pixels else (views.shape[1], views.shape[2])
        return self._tokens_of(branch).projector.output_grid(*grid)

    def num_tokens(self, example: Example) -> int:
        """Positions that an example takes up, its answer and the end included; only shapes are looked at."""
        content = sum(self.segment_tokens(segment) for segment in example.content)
        return content + len(self.codec.start_ids) + len(example.answer) + 1

    def segment_tokens(self, segment: Segment) -> int:
        """Positions that one segment of an example's content takes up."""
        if isinstance(segment, Sound):
            frames = len(segment.values)
            if segment.is_waveform:
                frames = self.part("audio_encoder", "waveforms").num_frames(frames)
            count: int = self.part("audio_projector", "sounds").projector.output_length(frames)
            return count
        if isinstance(segment, Seen):
            rows, columns = self.view_grid(segment.branch, segment.views)
            return len(segment.seconds) * (rows * columns if segment.order is None else len(segment.order))
        return len(segment.values) if isinstance(segment, Tokens) else len(segment)

    def read(self, examples: Sequence[Example]) -> list[Example]:
        """The examples with their sounds and pictures as tokens, which may then stand in several examples."""
        segments = [segment for example in examples for segment in example.content]
        made = {
            **self._sound_tokens({id(s): s for s in segments if isinstance(s, Sound)}),
            **self._seen_tokens({id(s): s for s in segments if isinstance(s, Seen)}),
        }
        return [
            replace(example, content=[made.get(id(segment), segment) for segment in example.content])
            for example in examples
        ]

    def _sound_tokens(self, sounds: dict[int, Sound]) -> dict[int, Tokens]:
        if not sounds:
            return {}
        part: AudioTokens = self.part("audio_projector", "sounds")
        found: dict[int, Tokens] = {}
        for waveforms in (False, True):
            chosen = {key: sound.values for key, sound in sounds.items() if sound.is_waveform == waveforms}
            if not chosen:
                continue
            if waveforms:
                encoder: AudioEncoder = self.part("audio_encoder", "waveforms")
                spectrograms, lengths = encoder.front_end([values.cpu().numpy() for values in chosen.values()])
                features, lengths = encoder(spectrograms.to(self.device), lengths.to(self.device))
            else:
                lengths = torch.tensor([len(values) for values in chosen.values()], device=self.device)
                features = pad_sequence(list(chosen.values()), batch_first=True).to(self.device)
            tokens = part(features, lengths)
            found |= {key: Tokens(t, part.projector.downsample_rate) for key, t in zip(chosen, tokens, strict=True)}
        return found

    def _seen_tokens(self, seen: dict[int, Seen]) -> dict[int, Tokens]:
        pixels = {key: s.views for key, s in seen.items() if s.views.dtype == torch.uint8 and len(s.views)}
        if pixels:
            encoder: VisionEncoder = self.part("vision_encoder", "pixels")
            features = encoder(torch.cat(list(pixels.values()))).split([len(views) for views in pixels.values()])
            seen = seen | {key: replace(seen[key], views=f) for key, f in zip(pixels, features, strict=True)}
        found: dict[int, Tokens] = {}
        for branch in BRANCHES:
            chosen = {key: s for key, s in seen.items() if s.branch == branch}
            if chosen:
                tokens = self._tokens_of(branch)(list(chosen.values()))
                found |= {key: Tokens(own) for key, own in zip(chosen, tokens, strict=True)}
        return found

    def _rows(
        self, examples: Sequence[Example]
    ) -> tuple[list[Float[Tensor, "tokens hidden_size"]], list[Int[Tensor, " tokens"]]]:
        """Embeddings and positions of each example's sequence."""
        read = self.read(examples)
        ids: list[list[int]] = []
        for example in read:
            texts: list[Any] = [segment for segment in example.content if not isinstance(segment, Tokens)]
            ids.append([i for text in (*texts, self.codec.start_ids, example.answer) for i in text])
        # All text at once, so that the gradients of the embeddings are summed in one order however content is cut.
        flat = self.language_model.get_input_embeddings()(
            torch.tensor([i for own in ids for i in own], dtype=torch.long, device=self.device)
        )
        rows = []
        for example, words in zip(read, flat.split([len(own) for own in ids]), strict=True):
            pieces = []
            for segment in example.content:
                if isinstance(segment, Tokens):
                    # The language model's own precision, which need not be the projector's.
                    pieces.append(segment.values.to(flat.dtype))
                else:
                    pieces.append(words[: self.segment_tokens(segment)])
                    words = words[self.segment_tokens(segment) :]
            rows.append(torch.cat([*pieces, words]))
        return rows, [self._positions(example) for example in read]

    def _positions(self, example: Example) -> Int[Tensor, " tokens"]:
        """Positions of one sequence: a sound at n = 4, no prompt and four frames a token give `2 6 10 | 0 4 8 12 16`.

        What stands between a sound and the answer begins where the sound ends.
        """
        aligned = self.positions == "time_aligned"
        found, at, answer_at = [], 0, None
        for segment in example.content:
            count = self.segment_tokens(segment)
            rate = segment.frames_per_token if aligned and isinstance(segment, Tokens) else None
            if rate is None:
                found.append(at + torch.arange(count))
                at += count
            else:
                found.append(at + torch.arange(count) * rate + rate // 2)
                answer_at, at = at, at + count * rate
        answer = torch.arange(len(self.codec.start_ids) + len(example.answer))
        step = self.frames_per_token if aligned else 1
        return torch.cat([*found, (at if answer_at is None else answer_at) + answer * step])

    def next_positions(self, position_ids: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """The positions of the tokens after those at `position_ids` in an answer."""
        return position_ids + (self.frames_per_token if self.positions == "time_aligned" else 1)

    def embed(self, examples: Sequence[Example]) -> JoinedSequence:
        """The sequences of examples side by side, padded on the left; with no answer yet, decoding begins there."""
        return pad_left(*self._rows(examples))

    def pack(self, examples: Sequence[Example]) -> PackedSequence:
        """The sequences of examples one after the other."""
        return pack_rows(*self._rows(examples))

    def forward(self, examples: Sequence[Example]) -> AnswerLoss:
        """Loss of each answer given what stands before it.

        With start `s`, answer `t u` and end `e`, the columns `s t u` predict `t u e`; nothing else is scored.
        """
        joined = self.embed(examples)
        return answer_loss(
            self.language_model, joined, [example.answer for example in examples], end_id=self.codec.end_id
        )

    def packed(self, examples: Sequence[Example], *, attention: str = "auto") -> PackedAnswers:
        """What `forward` computes, with the examples packed: encoders and projectors see what they see there."""
        answers = [example.answer for example in examples]
        packed = self.pack(examples)
        return packed_answers(self.language_model, packed, answers, end_id=self.codec.end_id, attention=attention)
