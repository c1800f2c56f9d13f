"""The contract of every audio projector: windows of encoder frames in, one language-model token a window out.

Section 3.1 of the paper (Conv-GMLP). Axes: `batch`, `frames` (encoder frames), `tokens` (windows of `downsample_rate`
consecutive frames), `windows` (the tokens of a whole batch, padding left out), `hidden_size` (encoder width; the
paper's d), `output_size` (language-model width). `downsample_rate` is the paper's n.
"""

from abc import ABC, abstractmethod
from typing import Any, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lab.errors import LabError

MAX_DOWNSAMPLE_RATE = 32


class AudioProjector(nn.Module, ABC):
    """Cuts encoder frames into windows that do not overlap and maps each onto one token.

    A subclass says what happens to a window, in `project`. Time is right-padded with zeros to a multiple of the rate,
    so the last window may hold fewer real frames than the others: 7 frames at rate 3 are the windows (0 1 2), (3 4 5),
    (6 . .), so 3 tokens. Windows that are wholly padding are never computed; their tokens are zeros.

    Raises:
        LabError: the rate is not a whole number from 1 to 32, or a width is not positive.
    """

    built_as: tuple[str, dict[str, Any]] | None = None
    """Name and options, where it was built by name."""

    def __init__(self, *, hidden_size: int, output_size: int, downsample_rate: int) -> None:
        super().__init__()
        if type(downsample_rate) is not int or not 1 <= downsample_rate <= MAX_DOWNSAMPLE_RATE:
            raise LabError(
                f"downsample_rate is {downsample_rate!r}; expected a whole number from 1 to {MAX_DOWNSAMPLE_RATE}"
            )
        for name, width in (("hidden_size", hidden_size), ("output_size", output_size)):
            if width < 1:
                raise LabError(f"{name} is {width}; expected at least 1")
        self.hidden_size = hidden_size
        self.output_size = output_size
        self.downsample_rate = downsample_rate

    @overload
    def output_length(self, num_frames: int) -> int: ...

    @overload
    def output_length(self, num_frames: Tensor) -> Tensor: ...

    def output_length(self, num_frames: int | Tensor) -> int | Tensor:
        """Tokens for `num_frames` encoder frames: ceil(frames / rate), because the last window is padded, not dropped.

        Differs from the paper: 30 s at n = 8 are 188 tokens here, where its figures give 187 (1500 / 8 = 187.5).

        Raises:
            LabError: an utterance is shorter than one window.
        """
        shortest = int(num_frames.min()) if isinstance(num_frames, Tensor) else num_frames
        if shortest < self.downsample_rate:
            raise LabError(
                f"downsample_rate {self.downsample_rate} is larger than an utterance of {shortest} encoder frames; "
                f"choose a rate of at most {shortest} or leave that utterance out"
            )
        return (num_frames + self.downsample_rate - 1) // self.downsample_rate

    def forward(
        self, features: Float[Tensor, "batch frames hidden_size"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch tokens output_size"], Int[Tensor, " batch"]]:
        """Project a right-padded batch; frames from `lengths` on are padding and their content is ignored.

        Returns the tokens (zeros past an utterance's own) and how many each utterance has.

        Raises:
            LabError: an utterance is shorter than one window.
            ValueError: a length exceeds the frames given, or the features are of another width.
        """
        batch, num_frames, hidden_size = features.shape
        if hidden_size != self.hidden_size:
            raise ValueError(f"features are {hidden_size} wide; this projector was built for {self.hidden_size}")
        if int(lengths.max()) > num_frames:
            raise ValueError(f"a length of {int(lengths.max())} frames exceeds the {num_frames} frames given")
        rate = self.downsample_rate
        token_lengths = self.output_length(lengths)
        num_tokens = self.output_length(num_frames)

        starts = torch.arange(num_tokens, device=features.device) * rate
        frames_in_window = (lengths.to(features.device)[:, None] - starts).clamp(0, rate).flatten()
        real = frames_in_window.nonzero().squeeze(1)
        windows = F.pad(features, (0, 0, 0, num_tokens * rate - num_frames)).reshape(-1, rate, hidden_size)
        if len(real) < len(windows):
            windows, frames_in_window = windows.index_select(0, real), frames_in_window.index_select(0, real)
        # Filled, not multiplied by 0: padding may hold NaN.
        is_padding = torch.arange(rate, device=features.device) >= frames_in_window[:, None]
        tokens = self.project(windows.masked_fill(is_padding[..., None], 0), frames_in_window)
        if len(real) < batch * num_tokens:
            tokens = tokens.new_zeros(batch * num_tokens, self.output_size).index_copy(0, real, tokens)
        return tokens.view(batch, num_tokens, self.output_size), token_lengths

    @abstractmethod
    def project(
        self, windows: Float[Tensor, "windows rate hidden_size"], frames_in_window: Int[Tensor, " windows"]
    ) -> Float[Tensor, "windows output_size"]:
        """Map each window onto one token; it has at least one real frame, and its padding frames are zeros."""

    def multiply_adds_per_window(self) -> int:
        """Multiply-adds of the matrix products for one window; here, of linear layers that each see a window once."""
        return sum(module.weight.numel() for module in self.modules() if isinstance(module, nn.Linear))

    def flops_per_audio_second(self, frames_per_second: float) -> float:
        """Floating-point operations (two a multiply-add) of the matrix products, forward, for one second of audio."""
        return 2.0 * self.multiply_adds_per_window() * frames_per_second / self.downsample_rate
