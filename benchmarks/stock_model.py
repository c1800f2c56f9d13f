"""The model of the downsample-rate study's cell as people wire it from stock parts.

Whisper's encoder runs in every step on 30 s windows, Conv-GMLP is made of `nn.Conv1d`, batches are right-padded,
decoding is transformers' `generate`. Axes: `batch`, `frames` (encoder frames), `tokens`, `hidden_size` (encoder width).
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.parts.audio_projectors import ConvGMLP
from lab.parts.joined_sequences import IGNORE_INDEX
from lab.parts.language_models import LanguageModel
from lab.training.samples import Augmentation


class Clock:
    """Adds up seconds under names, to say where a cell's time goes."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what happens in the context."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started


class StockConvGMLP(nn.Module):
    """The paper's figure 5 read literally: gate and up are convolutions of kernel n and stride n."""

    def __init__(self, *, hidden_size: int, output_size: int, downsample_rate: int) -> None:
        super().__init__()
        window_size = hidden_size * downsample_rate
        self.downsample_rate = downsample_rate
        self.gate = nn.Conv1d(hidden_size, window_size, downsample_rate, stride=downsample_rate, bias=False)
        self.up = nn.Conv1d(hidden_size, window_size, downsample_rate, stride=downsample_rate, bias=False)
        self.down = nn.Linear(window_size, window_size, bias=False)
        self.norm = nn.LayerNorm(window_size)
        self.output = nn.Linear(window_size, output_size)

    @torch.no_grad()
    def load_ours(self, ours: ConvGMLP) -> "StockConvGMLP":
        """Copy the weights of our projector: its matrices see a window frame by frame, a Conv1d channel by channel."""
        for convolution, linear in ((self.gate, ours.block.gate_proj), (self.up, ours.block.up_proj)):
            by_frame = linear.weight.view(len(linear.weight), self.downsample_rate, -1)
            convolution.weight.copy_(by_frame.transpose(1, 2))
        self.down.load_state_dict(ours.block.down_proj.state_dict())
        self.norm.load_state_dict(ours.block.norm.state_dict())
        self.output.load_state_dict(ours.output_proj.state_dict())
        return self

    def forward(self, features: Float[Tensor, "batch frames hidden_size"]) -> Float[Tensor, "batch tokens output_size"]:
        """Tokens of every window, those that are wholly padding included."""
        features = F.pad(features, (0, 0, 0, -features.shape[1] % self.downsample_rate))
        shortcut = features.reshape(len(features), features.shape[1] // self.downsample_rate, -1)
        channels_first = features.transpose(1, 2)
        hidden = F.silu(self.gate(channels_first)) * self.up(channels_first)
        return self.output(self.norm(self.down(hidden.transpose(1, 2)) + shortcut))


class StockAudioLanguageModel(nn.Module):
    """Frozen Whisper encoder, projector, frozen language model; the audio's tokens, then start, text and end.

    The positions are those of our cell: sequential, or where the language model was pretrained with them time-aligned.
    `start` holds the projector's first weights and the features' mean and standard deviation.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        *,
        encoder: WhisperEncoder,
        projector: StockConvGMLP,
        language_model: LanguageModel,
        start: dict[str, Tensor],
        augmentation: Augmentation,
        clock: Clock,
        seed: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.projector = projector
        self.language_model: Any = language_model.model.requires_grad_(False)
        self.codec = language_model.codec
        self.frames_per_token = language_model.frames_per_token
        self.augmentation, self.clock = augmentation, clock
        self.register_buffer("feature_mean", start.pop("feature_mean"))
        self.register_buffer("feature_std", start.pop("feature_std"))
        projector.load_state_dict(start)
        self._rng = np.random.default_rng(seed)

    def train(self, mode: bool = True) -> "StockAudioLanguageModel":
        """Set the mode; what is frozen stays in eval mode."""
        super().train(mode)
        self.encoder.eval()
        self.language_model.eval()
        return self

    def encode(
        self, input_features: Float[Tensor, "batch mels mel_frames"], num_frames: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch tokens output_size"], Int[Tensor, " batch"]]:
        """Audio tokens of a batch and how many each utterance has."""
        with self.clock("encoder"), torch.no_grad():
            encoded = self.encoder(input_features).last_hidden_state.float()
        frames = [row[:length] for row, length in zip(encoded, num_frames.tolist(), strict=True)]
        if self.training:
            mean, std = self.feature_mean.cpu().numpy(), self.feature_std.cpu().numpy()
            rate = self.projector.downsample_rate
            augmented = [
                self.augmentation(row.cpu().numpy(), self._rng, mean=mean, std=std, rate=rate) for row in frames
            ]
            frames = [torch.from_numpy(row).to(encoded.device) for row in augmented]
        standardised = [(row - self.feature_mean) / self.feature_std for row in frames]
        lengths = torch.tensor([len(row) for row in frames])
        return self.projector(pad_sequence(standardised, batch_first=True)), -(
            -lengths // self.projector.downsample_rate
        )

    def join(
        self,
        audio: Float[Tensor, "batch tokens output_size"],
        num_audio: Int[Tensor, " batch"],
        input_ids: Sequence[Int[Tensor, " text"]],
        side: str = "right",
    ) -> dict[str, Tensor]:
        """What the language model takes: audio and text one behind the other, padded on that side."""
        embed = self.language_model.get_input_embeddings()
        rows, positions, labels = [], [], []
        for tokens, length, ids in zip(audio, num_audio.tolist(), input_ids, strict=True):
            rows.append(torch.cat([tokens[:length], embed(ids)]))
            positions.append(self._positions(length, len(ids)).to(ids.device))
            labels.append(torch.cat([ids.new_full((length + 1,), IGNORE_INDEX), ids[1:]]))
        mask = [torch.ones_like(row) for row in positions]
        padded = {"attention_mask": mask, "position_ids": positions, "inputs_embeds": rows}
        joined = {name: pad_sequence(each, batch_first=True, padding_side=side) for name, each in padded.items()}
        return joined | {
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX, padding_side=side)
        }

    def _positions(self, num_audio: int, num_text: int) -> Int[Tensor, " tokens"]:
        if not self.frames_per_token:
            return torch.arange(num_audio + num_text)
        rate = self.projector.downsample_rate
        return torch.cat([torch.arange(num_audio) * rate + rate // 2, torch.arange(num_text) * self.frames_per_token])

    def forward(
        self,
        input_features: Float[Tensor, "batch mels mel_frames"],
        num_frames: Int[Tensor, " batch"],
        input_ids: Int[Tensor, "batch text"],
        num_text: Int[Tensor, " batch"],
    ) -> dict[str, Tensor]:
        """The loss as transformers computes it: the mean over all answer tokens of the batch."""
        audio, num_audio = self.encode(input_features, num_frames)
        texts = [ids[:length] for ids, length in zip(input_ids, num_text.tolist(), strict=True)]
        return {"loss": self.language_model(**self.join(audio, num_audio, texts), use_cache=False).loss}

    @torch.inference_mode()
    def score(
        self,
        audio: Float[Tensor, "batch tokens output_size"],
        num_audio: Int[Tensor, " batch"],
        texts: Sequence[Tensor],
    ) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
        """Summed loss of each answer in nats, and the number of its tokens."""
        joined = self.join(audio, num_audio, texts)
        labels = joined.pop("labels")[:, 1:]
        logits = self.language_model(**joined, use_cache=False).logits[:, :-1].float()
        losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none")
        return losses.sum(1), (labels != IGNORE_INDEX).sum(1)

    @torch.inference_mode()
    def generate(
        self,
        audio: Float[Tensor, "batch tokens output_size"],
        num_audio: Int[Tensor, " batch"],
        *,
        max_new_tokens: int,
        num_beams: int,
    ) -> list[list[int]]:
        """Answers as transformers' `generate` finds them, without start and end."""
        starts = [torch.tensor(self.codec.start_ids, device=audio.device)] * len(audio)
        joined = self.join(audio, num_audio, starts, side="left")
        joined.pop("labels")
        end = self.codec.end_id
        with _steps_of(self.language_model, self.frames_per_token or 1):
            answers = self.language_model.generate(
                **joined,
                max_new_tokens=max_new_tokens,
                num_beams=num_beams,
                do_sample=False,
                eos_token_id=end,
                pad_token_id=end,
            ).tolist()
        return [answer[: answer.index(end)] if end in answer else answer for answer in answers]


@contextmanager
def _steps_of(language_model: Any, step: int) -> Iterator[None]:
    """Let `generate` move `step` positions a token; of itself it knows only 1."""
    usual = language_model._update_model_kwargs_for_generation

    def update(*args: Any, **kwargs: Any) -> dict[str, Any]:
        model_kwargs: dict[str, Any] = usual(*args, **kwargs)
        model_kwargs["position_ids"][:, -1] += step - 1
        return model_kwargs

    language_model._update_model_kwargs_for_generation = update
    try:
        yield
    finally:
        del language_model._update_model_kwargs_for_generation
