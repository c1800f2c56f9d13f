"""Contrastive training of an image tower beside a caption tower, with SigLIP's loss.

SigLIP (Zhai et al., arXiv 2303.15343) asks of every pair of a batch, on its own, whether the caption fits the image.

Differs from SigLIP: batches of tens rather than 32k, so the bias starts at the log-odds of a pair of such a batch, and
scale and bias learn ten times as fast; the text side is a bag of hashed words; and the words of a picture's topic are
added to a share of the captions, because most names occur once.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lab.errors import LabError
from lab.training.checkpoints import Checkpoint
from lab.training.loop import TrainingOptions, drawn_in_order, mean_loss, tell_recent_loss, train
from standins.models.caption_tower import CaptionTower
from standins.models.vision_towers import ImageTower, build_image_tower
from standins.pictures.pasting import cutouts, paste
from standins.pictures.things import Picture, caption_name, thing

DEFAULT_STEPS = 500
CHECKPOINT_EVERY = 100


@dataclass(frozen=True, kw_only=True)
class VisionPretrainingOptions:
    """Schedule and size of images; `topic_share` is the share of captions that the words of the topic are added to."""

    image_size: int = 128
    steps: int = DEFAULT_STEPS
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    weight_decay: float = 0.05
    topic_share: float = 0.5
    seed: int = 0


class Pair(nn.Module):
    """An image tower and a caption tower, with the loss's scale and bias."""

    def __init__(self, *, image_tower: ImageTower, batch_size: int) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.caption_tower = CaptionTower(output_size=image_tower.hidden_size)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-math.log(max(batch_size - 1, 1))))

    def forward(self, pixels: Tensor, captions: Sequence[str]) -> Float[Tensor, "batch captions"]:
        """Logits of every image against every caption."""
        images = F.normalize(self.image_tower(pixels), dim=-1)
        texts = F.normalize(self.caption_tower(captions), dim=-1)
        return images @ texts.T * self.log_scale.exp() + self.bias


def sigmoid_loss(logits: Float[Tensor, "batch batch"]) -> Float[Tensor, ""]:
    """SigLIP's loss, nats: caption i fits image i and no other; a sum over the captions, a mean over the images."""
    fits = 2 * torch.eye(len(logits)) - 1
    return -F.logsigmoid(fits * logits).sum() / len(logits)


def training_text(picture: Picture, *, with_topic: bool = False) -> str:
    """Return the words that a picture is trained on: its English name, and those of its topic where asked for."""
    name = caption_name(picture.captions["en"])
    return f"{name} {picture.topic.replace('/', ' ').replace('-', ' ')}" if with_topic else name


def _batches(pictures: Sequence[Picture], batch_size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Draw indices for ever; no batch holds a thing twice, so that no caption of the thing itself counts as wrong."""
    by_thing: dict[str, list[int]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        by_thing[thing(picture.captions["en"])].append(index)
    groups = list(by_thing.values())
    while True:
        order = rng.permutation(len(groups))
        for start in range(0, max(1, len(groups) - batch_size + 1), batch_size):
            yield [int(rng.choice(groups[group])) for group in order[start : start + batch_size]]


def train_pair(
    name: str,
    pictures: Sequence[Picture],
    options: VisionPretrainingOptions,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[Pair, float]:
    """Train an image tower on `pictures`, on one thread, and return it with the mean loss of the last 50 steps.

    An interrupted training goes on from `checkpoint`, with the same batches that it would have seen.

    Raises:
        LabError: unknown tower, fewer than two pictures, a loss that is not finite.
    """
    if len(pictures) < 2:
        raise LabError(f"contrastive pretraining needs at least two pictures, got {len(pictures)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            tower = build_image_tower(name, image_size=options.image_size, seed=options.seed)
            torch.manual_seed(options.seed + 1)
            return _train(
                Pair(image_tower=tower, batch_size=options.batch_size), pictures, options, checkpoint, progress
            )
    finally:
        torch.set_num_threads(threads)


def _train(
    pair: Pair,
    pictures: Sequence[Picture],
    options: VisionPretrainingOptions,
    checkpoint: Path | None,
    progress: Callable[[int, int, float], None] | None,
) -> tuple[Pair, float]:
    if not options.steps:
        return pair.eval(), math.nan
    drawn = cutouts(pictures, longest_side=options.image_size)

    def draw() -> Iterator[tuple[Tensor, list[str]]]:
        rng = np.random.default_rng(options.seed)
        for chosen in _batches(pictures, options.batch_size, rng):
            pixels = np.stack([paste(drawn[index], image_size=options.image_size, rng=rng) for index in chosen])
            texts = [training_text(pictures[i], with_topic=rng.random() < options.topic_share) for i in chosen]
            yield torch.from_numpy(pixels), texts

    def learning_rates(step: int) -> list[float]:
        warmup = min(1.0, (step + 1) / max(options.warmup_steps, 1))
        slow = options.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        return [slow, 10 * slow]

    towers = [*pair.image_tower.parameters(), *pair.caption_tower.parameters()]
    batches = drawn_in_order(draw())
    record = train(
        pair,
        lambda step: mean_loss(sigmoid_loss(pair(*batches(step)))),
        # Not fused: the studies' results were measured with towers that were made so.
        TrainingOptions(
            weight_decay=options.weight_decay,
            betas=(0.9, 0.95),
            checkpoint_every=CHECKPOINT_EVERY,
            precision="float32",
            fused=False,
        ),
        steps=options.steps,
        groups=[{"params": towers}, {"params": [pair.log_scale, pair.bias], "weight_decay": 0.0}],
        learning_rates=learning_rates,
        clipped=towers,
        checkpoint=Checkpoint(path=checkpoint, key=checkpoint.stem) if checkpoint else None,
        describe="the image tower",
        on_step=tell_recent_loss(progress, options.steps, last=50, every=10),
    )
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return pair, float(np.mean(record.losses[-50:]))
