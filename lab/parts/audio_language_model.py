"""The model that joins the parts: prompt, audio tokens and answer, one after the other in the language model's space.

Section 3 of the paper. Axes: `batch`, `frames` (encoder frames), `tokens` (positions of the joined sequence, padding
included), `hidden_size` (the language model's width).

A row is prompt, audio, start and answer, laid out as in `lab.parts.joined_sequences`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.errors import LabError, choose
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.audio_projectors import AudioProjector
from lab.parts.joined_sequences import AnswerLoss, JoinedSequence, answer_loss, pad_left
from lab.parts.language_models import LanguageModel

POSITION_SCHEMES = {
    "sequential": "every token one further than the last, as transformers do by default",
    "time_aligned": "a position is an encoder frame: an audio token stands at its window's centre, a token of the "
    "answer at `frames_per_token` frames each",
}


class AudioLanguageModel(nn.Module):
    """Projector and language model (frozen or not), fed with an encoder's features.

    `encoder` is given where it is trained with the projector, as in the paper; a frozen one stays outside, its features
    are computed once.

    Features are standardised per channel with `feature_mean` and `feature_std` before the projector.
    Differs from the paper: neither the standardisation nor time-aligned positions are described there. Time-aligned
    positions (Qwen2.5-Omni's TMRoPE is built on the same idea) are for language models pretrained with them: they know
    `frames_per_token`, and take that scheme unless told otherwise.

    Raises:
        LabError: unknown position scheme, a time-aligned one for a language model that does not know its frames, or a
            projector whose tokens are not as wide as the language model's.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        *,
        projector: AudioProjector,
        language_model: LanguageModel,
        feature_mean: Float[Tensor, " features"] | None = None,
        feature_std: Float[Tensor, " features"] | None = None,
        prompt: str = "",
        positions: str = "auto",
        train_language_model: bool = False,
        encoder: AudioEncoder | None = None,
    ) -> None:
        super().__init__()
        if positions == "auto":
            positions = "time_aligned" if language_model.frames_per_token else "sequential"
        choose(POSITION_SCHEMES, positions, "position scheme")
        if positions == "time_aligned" and not language_model.frames_per_token:
            raise LabError(
                f"time-aligned positions need a language model pretrained with them; {language_model.name!r} was not: "
                "choose positions 'sequential'"
            )
        if projector.output_size != language_model.hidden_size:
            raise LabError(
                f"the projector gives tokens {projector.output_size} wide; language model {language_model.name!r} "
                f"takes {language_model.hidden_size}"
            )
        self.projector = projector
        self.encoder = encoder
        if encoder is not None:
            encoder.requires_grad_(True)
            encoder.whisper.embed_positions.requires_grad_(False)  # fixed sinusoids
        self.language_model = language_model.model
        self.codec = language_model.codec
        self.positions = positions
        self.frames_per_token = language_model.frames_per_token or 1
        self.train_language_model = train_language_model
        self.prompt_ids = self.codec.encode(prompt) if prompt else []
        hidden_size = projector.hidden_size
        self.register_buffer("feature_mean", torch.zeros(hidden_size) if feature_mean is None else feature_mean)
        self.register_buffer("feature_std", torch.ones(hidden_size) if feature_std is None else feature_std)
        self.language_model.requires_grad_(train_language_model)

    def train(self, mode: bool = True) -> "AudioLanguageModel":
        """Set the mode; a frozen language model stays in eval mode."""
        super().train(mode)
        self.language_model.train(mode and self.train_language_model)
        return self

    def num_tokens(self, num_frames: int, answer: str) -> int:
        """Positions that an utterance of `num_frames` encoder frames and its answer take up."""
        text = len(self.prompt_ids) + len(self.codec.start_ids) + len(self.codec.encode(answer)) + 1
        return text + self.projector.output_length(num_frames)

    def join(
        self,
        features: Float[Tensor, "batch frames features"],
        lengths: Int[Tensor, " batch"],
        answers: Sequence[Sequence[int]],
    ) -> JoinedSequence:
        """Lay prompt, audio tokens, start and `answers` (token ids; empty when decoding begins) side by side."""
        device = features.device
        audio, audio_lengths = self.projector((features - self.feature_mean) / self.feature_std, lengths)
        text_ids = [[*self.prompt_ids, *self.codec.start_ids, *answer] for answer in answers]
        embed = self.language_model.get_input_embeddings()
        text = embed(torch.tensor([i for ids in text_ids for i in ids], device=device))
        # The language model's own precision, which need not be the projector's.
        audio = audio.to(text.dtype)
        num_prompt = len(self.prompt_ids)
        rows, positions = [], []
        for row, words in enumerate(text.split([len(ids) for ids in text_ids])):
            num_audio = int(audio_lengths[row])
            rows.append(torch.cat([words[:num_prompt], audio[row, :num_audio], words[num_prompt:]]))
            positions.append(self._positions(num_audio, len(words) - num_prompt))
        return pad_left(rows, positions)

    def _positions(self, num_audio: int, num_answer: int) -> Int[Tensor, " tokens"]:
        """Positions of one sequence: at n = 4, no prompt and four frames a token, `2 6 10 | 0 4 8 12 16`."""
        num_prompt = len(self.prompt_ids)
        if self.positions == "sequential":
            return torch.arange(num_prompt + num_audio + num_answer)
        rate = self.projector.downsample_rate
        audio = num_prompt + torch.arange(num_audio) * rate + rate // 2
        answer = num_prompt + torch.arange(num_answer) * self.frames_per_token
        return torch.cat([torch.arange(num_prompt), audio, answer])

    def next_positions(self, position_ids: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """The positions of the tokens behind those at `position_ids` in an answer."""
        return position_ids + (self.frames_per_token if self.positions == "time_aligned" else 1)

    def forward(
        self,
        features: Float[Tensor, "batch frames features"],
        lengths: Int[Tensor, " batch"],
        answers: Sequence[Sequence[int]],
    ) -> AnswerLoss:
        """Loss of each answer given its audio; `answers` are token ids without start and end.

        With start `s`, answer `t u` and end `e`, the columns `s t u` predict `t u e`; nothing else is scored.
        """
        joined = self.join(features, lengths, answers)
        return answer_loss(self.language_model, joined, answers, end_id=self.codec.end_id)
