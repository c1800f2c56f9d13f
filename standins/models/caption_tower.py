"""The text side of contrastive pretraining: captions as bags of hashed words and parts of words."""

import zlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lab.data.splits import normalize_sentence

NUM_BUCKETS = 8192


def buckets(caption: str, *, num_buckets: int = NUM_BUCKETS) -> list[int]:
    """Hash each word, and each three letters running within `<word>`; at least one bucket, even of an empty caption.

    The letters carry over to words never seen: `snowman` shares most of them with `snowboarder`'s beginning.
    """
    words = [f"<{word}>" for word in normalize_sentence(caption).split()] or ["<>"]
    parts = [word[start : start + 3] for word in words for start in range(len(word) - 2)]
    return [zlib.crc32(part.encode()) % num_buckets for part in (*words, *parts)]


class CaptionTower(nn.Module):
    """The mean of the buckets' embeddings, then one hidden layer to `output_size`."""

    def __init__(self, *, output_size: int, hidden_size: int = 192) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(NUM_BUCKETS, hidden_size, mode="mean")
        self.layers = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, output_size),
        )

    def forward(self, captions: Sequence[str]) -> Float[Tensor, "batch output_size"]:
        """Embed captions; the vectors are not of unit length."""
        bags = [buckets(caption) for caption in captions]
        starts = torch.tensor([0, *(len(bag) for bag in bags[:-1])]).cumsum(0)
        flat = torch.tensor([bucket for bag in bags for bucket in bag])
        embedded: Tensor = self.layers(self.embedding(flat, starts))
        return embedded
