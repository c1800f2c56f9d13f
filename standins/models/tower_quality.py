"""How good a pretrained image tower is, on pictures of things it never saw: beside chance and an untrained tower.

Held-out pictures are pasted on grounds as in training, each from a seed of its own, so that the score repeats exactly.
"""

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from lab.data.splits import Split
from lab.errors import LabError
from standins.models.contrastive import DEFAULT_STEPS, Pair, training_text
from standins.models.vision_pretraining import load_pair, pretrained_vision_tower, tower_pictures
from standins.pictures.pasting import cutouts, paste
from standins.pictures.pictures import Picture, thing


@dataclass(frozen=True)
class TowerScore:
    """Fractions: the right caption is first among `choices` (`caption_accuracy`), the right topic is told."""

    caption_accuracy: float
    topic_accuracy: float


@dataclass(frozen=True)
class TowerQuality:
    """One tower's score beside those of chance and of the same tower untrained.

    `caption_pictures` and `topic_pictures` count what was scored; topics are told from the features by logistic
    regression, fitted for each source on the training side; chance tells the commonest topic.
    """

    trained: TowerScore
    untrained: TowerScore
    chance: TowerScore
    choices: int
    caption_pictures: int
    topic_pictures: int


def tower_quality(
    name: str = "siglip_tiny",
    *,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    image_size: int = 128,
    split: Split = "test",
    choices: int = 10,
) -> TowerQuality:
    """Score a tower of `pretrained_vision_tower` (trained at the first call) on the pictures of one split.

    Raises:
        LabError: as `pretrained_vision_tower`; fewer things in the split than `choices`, or `choices` below two.
    """
    held_out, training = tower_pictures(split), tower_pictures("train")
    folders = [pretrained_vision_tower(name, steps=number, seed=seed, image_size=image_size) for number in (steps, 0)]
    scores = [score_tower(load_pair(folder), training, held_out, choices=choices) for folder in folders]
    return TowerQuality(
        trained=scores[0],
        untrained=scores[1],
        chance=TowerScore(1 / choices, commonest_topic_accuracy(training, held_out)),
        choices=choices,
        caption_pictures=len(one_a_thing(held_out)),
        topic_pictures=len(held_out),
    )


def score_tower(
    pair: Pair, training: Sequence[Picture], held_out: Sequence[Picture], *, choices: int = 10
) -> TowerScore:
    """Score one pair of towers; see `TowerQuality`."""
    named = one_a_thing(held_out)
    if not 2 <= choices <= len(named):
        raise LabError(f"{choices} captions to choose from; expected 2 to {len(named)}, the things held out")
    seen, unseen = _features(pair, training), _features(pair, held_out)
    place = {picture.id: index for index, picture in enumerate(held_out)}
    with torch.no_grad():
        texts = F.normalize(pair.caption_tower([training_text(picture) for picture in named]), dim=-1).numpy()
    images = unseen[[place[picture.id] for picture in named]]
    images = images / np.maximum(np.linalg.norm(images, axis=1, keepdims=True), 1e-12)
    return TowerScore(
        caption_accuracy(images @ texts.T, choices=choices), topic_accuracy(seen, unseen, training, held_out)
    )


def one_a_thing(pictures: Sequence[Picture]) -> list[Picture]:
    """Return the first picture of each thing: a caption of another picture of the thing would be right as well."""
    return list({thing(picture.captions["en"]): picture for picture in reversed(pictures)}.values())


def caption_accuracy(similarities: Float[ndarray, "images captions"], *, choices: int) -> float:
    """Probability that caption i beats `choices - 1` others drawn at random for image i, a mean over the images.

    It is computed, not drawn: with r of n others at least as similar it is C(n - r, choices - 1) / C(n, choices - 1).
    """
    own = np.diag(similarities)[:, None]
    others = len(similarities) - 1
    better = (similarities >= own).sum(axis=1) - 1
    draws = math.comb(others, choices - 1)
    return float(np.mean([math.comb(others - int(count), choices - 1) / draws for count in better]))


def broad_topic(picture: Picture) -> str:
    """Return the first part of a topic: a stamp's folder, an emoji's group."""
    return picture.topic.split("/")[0]


def topic_accuracy(
    seen: Float[ndarray, "training hidden_size"],
    unseen: Float[ndarray, "held_out hidden_size"],
    training: Sequence[Picture],
    held_out: Sequence[Picture],
) -> float:
    """Fraction of held-out pictures whose topic a linear classifier tells; fitted on training, for each source."""
    right = 0
    for source, (fitted, scored) in _by_source(training, held_out).items():
        topics = [broad_topic(training[index]) for index in fitted]
        if len(set(topics)) < 2:
            raise LabError(f"all training pictures of {source} are of topic {topics[0]!r}; expected two topics or more")
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        told = probe.fit(seen[fitted], topics).predict(unseen[scored])
        right += sum(topic == broad_topic(held_out[index]) for topic, index in zip(told, scored, strict=True))
    return right / len(held_out)


def commonest_topic_accuracy(training: Sequence[Picture], held_out: Sequence[Picture]) -> float:
    """Fraction of held-out pictures of the topic that is the commonest in their source's training side."""
    right = 0
    for fitted, scored in _by_source(training, held_out).values():
        [(commonest, _)] = Counter(broad_topic(training[index]) for index in fitted).most_common(1)
        right += sum(broad_topic(held_out[index]) == commonest for index in scored)
    return right / len(held_out)


def _by_source(training: Sequence[Picture], held_out: Sequence[Picture]) -> dict[str, tuple[list[int], list[int]]]:
    sources = sorted({picture.source for picture in held_out})
    lost = set(sources) - {picture.source for picture in training}
    if lost:
        raise LabError(f"no training pictures of {', '.join(sorted(lost))}; expected some of every source held out")
    return {
        source: (
            [index for index, picture in enumerate(training) if picture.source == source],
            [index for index, picture in enumerate(held_out) if picture.source == source],
        )
        for source in sources
    }


@torch.no_grad()
def _features(pair: Pair, pictures: Sequence[Picture]) -> Float[ndarray, "pictures hidden_size"]:
    size = pair.image_tower.image_size
    images = [
        paste(cutout, image_size=size, rng=np.random.default_rng(zlib.crc32(picture.id.encode())))
        for picture, cutout in zip(pictures, cutouts(pictures, longest_side=size), strict=True)
    ]
    batches = [torch.from_numpy(np.stack(images[start : start + 64])) for start in range(0, len(images), 64)]
    return np.concatenate([pair.image_tower(batch).numpy() for batch in batches])
