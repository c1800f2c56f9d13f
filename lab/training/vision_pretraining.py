"""Contrastive pretraining of a small image tower on stamps and emoji, as no package holds weights of CLIP or SigLIP.

The stand-in, where no hub can be reached, for the paper's vision encoder (section 3). The loss is SigLIP's (Zhai et
al., arXiv 2303.15343): every pair of a batch is one yes-or-no question of its own.

Differs from SigLIP: batches of 64 rather than 32k, so the bias starts at the log-odds of a pair of such a batch, and
scale and bias learn ten times as fast; the text side is a bag of hashed words; and the words of a picture's topic are
added to a share of the captions, because most names occur once.
"""

import hashlib
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import transformers
from filelock import FileLock
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lab.data import emoji as emoji_packages
from lab.data import stamps as stamp_packages
from lab.data.fetch import packages
from lab.data.pasting import cutouts, paste
from lab.data.pictures import Picture, caption_name, emoji, picture_split, stamps, thing
from lab.data.splits import Split
from lab.errors import LabError
from lab.paths import cache_dir
from lab.training.caption_tower import CaptionTower
from lab.training.vision_towers import ImageTower, build_image_tower, load_image_tower

# Raise it when the same options and pictures would give another tower.
RECIPE_VERSION = 1
DEFAULT_STEPS = 500
DESCRIPTION_FILE = "tower.json"
CAPTIONS_FILE = "captions.safetensors"
SOURCES = (stamp_packages.PACKAGE, emoji_packages.STILL, emoji_packages.NAMES)


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


def tower_pictures(split: Split) -> list[Picture]:
    """Return the stamps and emoji of one side of the split.

    Raises:
        LabError: a package cannot be fetched.
    """
    return [picture for picture in (*stamps(), *emoji()) if picture_split(picture) == split]


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
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[Pair, float]:
    """Train an image tower on `pictures`, on one thread, and return it with the mean loss of the last 50 steps.

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
            return _train(Pair(image_tower=tower, batch_size=options.batch_size), pictures, options, progress)
    finally:
        torch.set_num_threads(threads)


def _train(
    pair: Pair,
    pictures: Sequence[Picture],
    options: VisionPretrainingOptions,
    progress: Callable[[int, int, float], None] | None,
) -> tuple[Pair, float]:
    rng = np.random.default_rng(options.seed)
    drawn = cutouts(pictures, longest_side=options.image_size)
    batches = _batches(pictures, options.batch_size, rng)
    fast = [pair.log_scale, pair.bias]
    slow = [*pair.image_tower.parameters(), *pair.caption_tower.parameters()]
    groups = [
        {"params": slow, "factor": 1.0},
        {"params": fast, "factor": 10.0, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=options.learning_rate, betas=(0.9, 0.95), weight_decay=options.weight_decay
    )
    recent: list[float] = []
    pair.train()
    for step in range(options.steps):
        warmup = min(1.0, (step + 1) / max(options.warmup_steps, 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * group["factor"] * warmup * decay
        chosen = next(batches)
        pixels = np.stack([paste(drawn[index], image_size=options.image_size, rng=rng) for index in chosen])
        texts = [training_text(pictures[i], with_topic=rng.random() < options.topic_share) for i in chosen]
        loss = sigmoid_loss(pair(torch.from_numpy(pixels), texts))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise LabError(f"the loss is {value} at step {step} of the image tower, learning rate {group['lr']:.3g}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(slow, 1.0)
        optimizer.step()
        recent = [*recent[-49:], value]
        if progress and ((step + 1) % 10 == 0 or step + 1 == options.steps):
            progress(step + 1, options.steps, float(np.mean(recent)))
    return pair.eval(), float(np.mean(recent)) if recent else math.nan


def _identity(name: str, options: VisionPretrainingOptions) -> str:
    sources = {source: packages()[source].sha256 for source in SOURCES}
    library = timm.__version__ if name.startswith("timm:") else transformers.__version__
    identity = json.dumps([RECIPE_VERSION, name, asdict(options), sources, library], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _options(steps: int, seed: int, image_size: int) -> VisionPretrainingOptions:
    return VisionPretrainingOptions(steps=steps, warmup_steps=min(50, steps), seed=seed, image_size=image_size)


def vision_tower_folder(
    name: str = "siglip_tiny", *, steps: int = DEFAULT_STEPS, seed: int = 0, image_size: int = 128
) -> Path:
    """Where a tower lies, whether it is there yet or not."""
    stem = name.replace(":", "-").replace("/", "-")
    return cache_dir() / "vision_towers" / f"{stem}-{_identity(name, _options(steps, seed, image_size))}"


def pretrained_vision_tower(
    name: str = "siglip_tiny",
    *,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    image_size: int = 128,
    progress: Callable[[int, int, float], None] | None = None,
) -> Path:
    """Return the folder of an image tower, one of `VISION_TOWERS` or `timm:NAME`; the first call trains it.

    A SigLIP lies there as transformers saves it, a timm model as `model.safetensors` with `timm.json`; both with
    `tower.json`, what it was trained on, and `captions.safetensors`, its text side. No step at all is the untrained
    tower. `progress` is called with steps done, steps in all and the recent loss.

    Raises:
        LabError: unknown tower, a package that cannot be fetched, a loss that is not finite, a full disk.
    """
    folder = vision_tower_folder(name, steps=steps, seed=seed, image_size=image_size)
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                options = _options(steps, seed, image_size)
                pictures = tower_pictures("train")
                pair, loss = train_pair(name, pictures, options, progress=progress)
                _save(pair, folder, _description(name, pictures, options, pair, loss))
    except (OSError, SafetensorError) as error:
        raise LabError(f"the image tower cannot be written to {folder} ({error})") from error
    return folder


def _description(
    name: str, pictures: Sequence[Picture], options: VisionPretrainingOptions, pair: Pair, loss: float
) -> dict[str, Any]:
    counts = {source: sum(p.source == source for p in pictures) for source in sorted({p.source for p in pictures})}
    return {
        "name": name,
        "options": asdict(options),
        "parameters": sum(parameter.numel() for parameter in pair.image_tower.parameters()),
        "training_pictures": counts,
        "training_things": len({thing(picture.captions["en"]) for picture in pictures}),
        "sources": {source: packages()[source].sha256 for source in SOURCES},
        "training_loss": None if math.isnan(loss) else loss,
    }


def _save(pair: Pair, folder: Path, description: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as scratch:
        unfinished = Path(scratch, "tower")
        unfinished.mkdir()
        pair.image_tower.save(unfinished)
        rest = {key: value for key, value in pair.state_dict().items() if not key.startswith("image_tower.")}
        save_file(rest, unfinished / CAPTIONS_FILE)
        (unfinished / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        unfinished.rename(folder)


def describe_tower(folder: Path) -> dict[str, Any]:
    """What is recorded of a tower: options, the pictures it was trained on, its last loss.

    Raises:
        LabError: the folder holds no tower of ours.
    """
    try:
        described: dict[str, Any] = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"{folder} holds no image tower ({error}); `pretrained_vision_tower` makes one") from error
    return described


def load_pair(folder: Path) -> Pair:
    """Load both towers of a folder that `pretrained_vision_tower` made, in evaluation mode.

    Raises:
        LabError: the folder does not hold them, or damaged.
    """
    described = describe_tower(folder)
    pair = Pair(image_tower=load_image_tower(folder), batch_size=described["options"]["batch_size"])
    try:
        missing = pair.load_state_dict(load_file(folder / CAPTIONS_FILE), strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise LabError(
            f"{folder / CAPTIONS_FILE} cannot be loaded ({error}); delete {folder} to train again"
        ) from error
    lost = [key for key in missing.missing_keys if not key.startswith("image_tower.")]
    if lost or missing.unexpected_keys:
        raise LabError(f"{folder / CAPTIONS_FILE} lacks {', '.join(lost) or 'nothing'}; delete {folder} to train again")
    return pair.eval()
