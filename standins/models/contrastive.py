"""Contrastive training of an image tower beside a caption tower, with SigLIP's loss.

SigLIP (Zhai et al., arXiv 2303.15343) asks of every pair of a batch, on its own, whether the caption fits the image.
Pictures are pasted at random on plain or shaded grounds: what makes many views of the few that there are.

Differs from SigLIP: batches of tens rather than 32k, so the bias starts at the log-odds of a pair of such a batch, and
scale and bias learn ten times as fast; the text side is a bag of hashed words; and the words of a picture's topic are
added to a share of the captions, because most names occur once.
"""

import math
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.utils.logging import disable_progress_bar

from lab.data.images import read_cutout
from lab.data.splits import normalize_sentence
from lab.errors import LabError, choose
from lab.parts.vision_encoders import check_timm
from lab.training.checkpoints import Checkpoint
from lab.training.loop import TrainingOptions, drawn_in_order, mean_loss, tell_recent_loss, train
from standins.models.kept_model import write_description
from standins.pictures.pictures import Picture, caption_name, thing

DEFAULT_STEPS = 500
TIMM_FILE, WEIGHTS_FILE = "timm.json", "model.safetensors"
NUM_BUCKETS = 8192
CHECKPOINT_EVERY = 100
_MAX_ROTATION_DEGREES = 20.0
_SMALLEST_SHARE = 0.45
_SHADED_SHARE = 0.5
# A drawing in one colour, such as a letter, would be lost on a ground of the same colour.
_LEAST_CONTRAST = 80.0
_MAX_GROUNDS = 8


class ImageTower(nn.Module, ABC):
    """Pixels to one pooled feature; the normalisation is inside."""

    model: Any
    mean: Tensor
    std: Tensor

    def __init__(self, *, model: nn.Module, image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model, self.image_size = model, image_size
        self.register_buffer("mean", torch.tensor(mean) * 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(std) * 255.0, persistent=False)
        was_training = model.training
        with torch.no_grad():
            black = torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8)
            self.hidden_size = int(self.eval()(black).shape[-1])
        self.train(was_training)

    def forward(self, pixels: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch hidden_size"]:
        """Pool each image into one vector; it is not of unit length."""
        normalised = ((pixels.float() - self.mean) / self.std).permute(0, 3, 1, 2).contiguous()
        return self._pooled(normalised)

    @abstractmethod
    def _pooled(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch hidden_size"]:
        """As `forward`, of pixels that are normalised."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the tower into a folder that exists."""


class SiglipTower(ImageTower):
    """A SigLIP vision model with its attention pooling; saved as transformers saves it."""

    def __init__(self, *, model: SiglipVisionModel) -> None:
        config: Any = model.config
        super().__init__(model=model, image_size=config.image_size, mean=[0.5] * 3, std=[0.5] * 3)

    def _pooled(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch hidden_size"]:
        pooled: Tensor = self.model(pixel_values=pixels).pooler_output
        return pooled

    def save(self, folder: Path) -> None:
        """Write what `SiglipVisionModel.from_pretrained` and an image processor read."""
        disable_progress_bar()
        self.model.save_pretrained(folder)
        side = {"height": self.image_size, "width": self.image_size}
        processor = {
            "image_processor_type": "SiglipImageProcessor",
            "do_resize": True,
            "size": side,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        }
        write_description(folder / "preprocessor_config.json", processor)


class TimmTower(ImageTower):
    """Any timm model without its classifier; saved as a state dict and, in `timm.json`, what it takes to build it."""

    def __init__(self, *, architecture: str, image_size: int) -> None:
        self.architecture = architecture
        model = _timm_model(architecture, image_size)
        config = resolve_model_data_config(model)
        self.normalisation = {"mean": list(config["mean"]), "std": list(config["std"])}
        super().__init__(model=model, image_size=image_size, **self.normalisation)

    def _pooled(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch hidden_size"]:
        pooled: Tensor = self.model(pixels)
        return pooled

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `timm.json`."""
        save_file({name: value.contiguous() for name, value in self.model.state_dict().items()}, folder / WEIGHTS_FILE)
        description = {"architecture": self.architecture, "image_size": self.image_size, **self.normalisation}
        write_description(folder / TIMM_FILE, description)


def _timm_model(architecture: str, image_size: int) -> nn.Module:
    check_timm(architecture)
    # A model that takes any size has no such option.
    fixed = getattr(timm.get_pretrained_cfg(architecture), "fixed_input_size", False)
    sized: dict[str, Any] = {"img_size": image_size} if fixed else {}
    model: nn.Module = timm.create_model(architecture, num_classes=0, **sized)
    return model


def siglip_tiny(image_size: int) -> SiglipTower:
    """SigLIP with 4 layers of width 128 and patches of 16 pixels, 1.1 million parameters."""
    return SiglipTower(
        model=SiglipVisionModel(
            SiglipVisionConfig(
                image_size=image_size,
                patch_size=16,
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=4,
            )
        )
    )


def build_image_tower(name: str, *, image_size: int, seed: int = 0) -> ImageTower:
    """Build an untrained tower, one of `VISION_TOWERS` or `timm:NAME`; one seed repeats its weights exactly."""
    kind, _, architecture = name.partition(":")
    build = choose(VISION_TOWERS, kind, "image tower") if kind != "timm" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(image_size) if build else TimmTower(architecture=architecture, image_size=image_size)


# Besides, `timm:NAME` is any model of timm.
VISION_TOWERS: dict[str, Callable[[int], ImageTower]] = {"siglip_tiny": siglip_tiny}


def buckets(caption: str) -> list[int]:
    """Hash each word, and each three letters running within `<word>`; at least one bucket, even of an empty caption.

    The letters carry over to words never seen: `snowman` shares most of them with `snowboarder`'s beginning.
    """
    words = [f"<{word}>" for word in normalize_sentence(caption).split()] or ["<>"]
    parts = [word[start : start + 3] for word in words for start in range(len(word) - 2)]
    return [zlib.crc32(part.encode()) % NUM_BUCKETS for part in (*words, *parts)]


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


def cut_out(picture: Picture, *, longest_side: int) -> Image.Image:
    """Read a picture as RGBA, cropped to what is not transparent, at most `longest_side` pixels high and wide."""
    read = read_cutout(picture.path)
    read = read.crop(read.getchannel("A").getbbox() or (0, 0, *read.size))
    read.thumbnail((longest_side, longest_side))
    return read


def paste(
    cutout: Image.Image, *, image_size: int, rng: np.random.Generator
) -> UInt8[ndarray, "image_size image_size 3"]:
    """Paste at a random size, place and turn on a random ground; all of the picture stays in sight.

    Its longer side, once turned by at most 20 degrees either way, takes 45 to 100% of the image's.
    """
    turned = cutout.rotate(float(rng.uniform(-1, 1)) * _MAX_ROTATION_DEGREES, Image.Resampling.BILINEAR, expand=True)
    scale = image_size * float(rng.uniform(_SMALLEST_SHARE, 1.0)) / max(turned.size)
    width, height = (max(1, round(side * scale)) for side in turned.size)
    pasted = turned.resize((width, height), Image.Resampling.BILINEAR)
    image = Image.fromarray(_contrasting_ground(pasted, image_size, rng))
    place = (int(rng.integers(0, image_size - width + 1)), int(rng.integers(0, image_size - height + 1)))
    image.paste(pasted, place, pasted)
    return np.asarray(image)


def ground(image_size: int, rng: np.random.Generator) -> UInt8[ndarray, "image_size image_size 3"]:
    """Draw a ground: half of them of one colour, half shaded between two along a random direction."""
    first, second = rng.uniform(0, 255, (2, 3))
    if rng.random() >= _SHADED_SHARE:
        second = first
    angle = rng.uniform(0, 2 * np.pi)
    steps = np.linspace(-1, 1, image_size)
    along = np.cos(angle) * steps[None, :] + np.sin(angle) * steps[:, None]
    share = ((along - along.min()) / max(float(np.ptp(along)), 1e-9))[..., None]
    return np.rint(first + (second - first) * share).astype(np.uint8)


def _contrasting_ground(pasted: Image.Image, image_size: int, rng: np.random.Generator) -> UInt8[ndarray, "s s 3"]:
    colour = _mean_colour(pasted)
    chosen = ground(image_size, rng)
    for _ in range(_MAX_GROUNDS - 1):
        if float(np.linalg.norm(chosen.mean(axis=(0, 1)) - colour)) >= _LEAST_CONTRAST:
            break
        chosen = ground(image_size, rng)
    return chosen


def _mean_colour(image: Image.Image) -> Float[ndarray, "3"]:
    pixels = np.asarray(image, dtype=np.float64)
    weights = pixels[..., 3:] + 1e-9
    return (pixels[..., :3] * weights).sum(axis=(0, 1)) / weights.sum()


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
    name = caption_name(picture.caption)
    return f"{name} {picture.topic.replace('/', ' ').replace('-', ' ')}" if with_topic else name


def _batches(pictures: Sequence[Picture], batch_size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Draw indices for ever; no batch holds a thing twice, so that no caption of the thing itself counts as wrong."""
    by_thing: dict[str, list[int]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        by_thing[thing(picture.caption)].append(index)
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
    drawn = [cut_out(picture, longest_side=options.image_size) for picture in pictures]

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
