"""Pretraining of the vision studies' small language model: questions about scenes that are told to it in symbols.

The `cpu` rung's stand-in for what the paper's LLM (section 3) knows of the world before it sees any: what comes first,
which way a thing goes, how many there were. It learns it from scenes of the training side told in symbols (what a
projector would have to say if it saw perfectly), through a linear reader that is thrown away afterwards; no picture is
seen, and none of the projectors that are studied. Differs from the paper, whose LLM learned this from text: a model of
three layers does not learn to compare moments from some thousand questions on features of an encoder.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from lab.data.fetch import packages
from lab.data.splits import SPLITS
from lab.data.video import chosen_seconds
from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss, answer_loss, pad_left
from lab.parts.language_models import LanguageModel, WordCodec
from lab.parts.media_tokens import NUM_WAVES, place_waves, token_places
from lab.parts.part import weights_sha256
from lab.training.checkpoints import Checkpoint
from lab.training.loop import TrainingOptions, drawn_in_order, tell_recent_loss, train
from lab.training.named_parts import OwnLanguageModel
from standins.models.character_model import CHECKPOINT_EVERY, PretrainingOptions, build_character_model
from standins.models.kept_model import kept_folder, made_model, write_description
from standins.pictures.pictures import EMOJI_NAMES, EMOJI_PICTURES, STAMPS
from standins.scenes.casts import THING_CLASSES
from standins.scenes.questions import still_scene, video_scene
from standins.scenes.scene import THOUSAND, Scene
from standins.scenes.stage import SceneOptions
from standins.texts import to_alphabet

RECIPE_VERSION = 1
# Beside transformers' own files: the words, and the layer by which the model was told where and when a token is.
WORDS_FILE, MARKS_FILE = "words.json", "marks.safetensors"
_VOCABULARY_SCENES = 1500
NUM_WORDS = 66  # of `vocabulary`
_CLASSES = tuple(THING_CLASSES)
_LARGEST = 300  # about a thing's longer side, in thousandths of the frame
NUM_SYMBOLS = len(_CLASSES) + 5
"""A share of the cell for each class, then sine and cosine of the angle, the size, and how far off its centre is."""


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """Size and schedule; `still_share` is the share of questions on single frames, `batch_size` counts questions."""

    hidden_size: int = 192
    num_hidden_layers: int = 3
    steps: int = 5500
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    still_share: float = 0.2
    grids: tuple[int, ...] = (3,)
    max_frames: int = 8
    seconds: tuple[float, float] = (8.0, 12.0)
    event_seconds: tuple[float, float] = (2.0, 4.0)
    # Scenes of the studies' training have seed 1, dev 2, test 3.
    scene_seed: int = 11
    seed: int = 0


def scene_symbols(
    scene: Scene, seconds: Float32[ndarray, " frames"], grid: int
) -> Float32[ndarray, "frames rows columns symbols"]:
    """Tell a scene at these moments on a grid of `grid` x `grid` cells; a later thing hides an earlier one.

    A thing is taken for the square of its longer side; what it says of itself counts by the share of the cell that it
    covers.
    """
    edges = np.linspace(0, THOUSAND, grid + 1, dtype=np.float32)
    low, high, middle = edges[:-1], edges[1:], (edges[:-1] + edges[1:]) / 2
    told = np.zeros((len(seconds), grid, grid, NUM_SYMBOLS), dtype=np.float32)
    for actor in scene.actors:
        states = [actor.state(round(float(moment) * THOUSAND)) for moment in seconds]
        x, y, size, angle, visible = (
            np.array([getattr(state, name) for state in states], dtype=np.float32)
            for name in ("x", "y", "size", "angle", "visible")
        )
        across, down = (
            np.clip(np.minimum(high, (at + size / 2)[:, None]) - np.maximum(low, (at - size / 2)[:, None]), 0, None)
            for at in (x, y)
        )
        share = down[:, :, None] * across[:, None, :] * (visible * (grid / THOUSAND) ** 2)[:, None, None]
        told *= 1 - share[..., None]
        turned = np.deg2rad(angle)[:, None, None]
        off_x, off_y = ((at[:, None] - middle) / (THOUSAND / 2) for at in (x, y))
        told[..., _CLASSES.index(actor.word)] += share
        for place, value in enumerate(
            (np.sin(turned), np.cos(turned), (size / _LARGEST)[:, None, None], off_x[:, None, :], off_y[:, :, None])
        ):
            told[..., len(_CLASSES) + place] += share * value
    return told


class SymbolReader(nn.Module):
    """Symbols of a cell to one token, and the marks of where and when it is."""

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.symbols = nn.Linear(NUM_SYMBOLS, output_size)
        self.marks = nn.Linear(NUM_WAVES, output_size, bias=False)

    def forward(self, told: Tensor, seconds: Tensor) -> Tensor:
        """Tokens of one scene, frame after frame, row by row."""
        _, rows, columns, _ = told.shape
        places = torch.from_numpy(token_places(np.arange(rows * columns), (1, 1), (rows, columns)))
        return (self.symbols(told.flatten(1, 2)) + self.marks(place_waves(places, seconds))).flatten(0, 1)


def plain_words(text: str) -> str:
    """Text as this model reads and writes it."""
    return to_alphabet(text, punctuation=False)


def vocabulary() -> tuple[str, ...]:
    """Every word of the questions and choices about scenes and stills."""
    words: set[str] = set()
    for split in SPLITS:
        for index in range(_VOCABULARY_SCENES):
            for scene in (video_scene(index, seed=0, split=split), still_scene(index, seed=0, split=split)):
                for text in (scene.question.text, *scene.question.choices):
                    words |= set(plain_words(text).split())
    return tuple(sorted(words))


def word_model_folder(steps: int) -> Path:
    """Where the model of that many steps lies, whether it is there yet or not."""
    options = _options(steps)
    pinned = [packages()[name].sha256 for name in (STAMPS, EMOJI_PICTURES, EMOJI_NAMES)]
    return kept_folder("language_models", "words", RECIPE_VERSION, asdict(options), pinned)


def _options(steps: int) -> WorldOptions:
    return WorldOptions(steps=steps, warmup_steps=min(50, steps))


def pretrained_word_model(*, steps: int, progress: Callable[[int, int, float], None] | None = None) -> Path:
    """Return the model's folder; the first call pretrains it."""

    def make(folder: Path, checkpoint: Path) -> None:
        pretrain_word_model(folder, _options(steps), checkpoint=checkpoint, progress=progress)

    return made_model(word_model_folder(steps), "the word model", make)


def pretrain_word_model(
    folder: Path,
    options: WorldOptions,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> None:
    """Pretrain on one thread's worth of work and write the model; see the module's first lines.

    An interrupted pretraining goes on from `checkpoint`, with the same batches that it would have seen.
    """
    codec = WordCodec(words=vocabulary())
    model = _build(options, codec)
    reader = SymbolReader(options.hidden_size)

    def draw() -> Iterator[list[_Told]]:
        rng = np.random.default_rng(options.seed)
        for step in range(options.steps):
            yield [
                _told(scene, int(rng.choice(options.grids)), options, codec) for scene in _scenes(step, options, rng)
            ]

    def learning_rate(step: int) -> list[float]:
        warm = min(1.0, (step + 1) / max(1, options.warmup_steps))
        return [options.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))]

    batches = drawn_in_order(draw())
    train(
        nn.ModuleDict({"model": model, "reader": reader}),
        lambda step: _loss(model, reader, codec, batches(step)),
        TrainingOptions(checkpoint_every=CHECKPOINT_EVERY),
        steps=options.steps,
        learning_rates=learning_rate,
        checkpoint=Checkpoint(path=checkpoint, key=checkpoint.stem) if checkpoint else None,
        describe="the pretraining of the word model",
        on_step=tell_recent_loss(progress, options.steps, last=100, every=50),
    )
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    disable_progress_bar()
    model.save_pretrained(folder)
    save_file({"marks": reader.marks.weight.detach().clone()}, folder / MARKS_FILE)
    write_description(folder / WORDS_FILE, {"words": codec.words, "options": asdict(options)})


def _build(options: WorldOptions, codec: WordCodec) -> Qwen3ForCausalLM:
    sizes = PretrainingOptions(
        hidden_size=options.hidden_size, num_hidden_layers=options.num_hidden_layers, seed=options.seed
    )
    return build_character_model(sizes, codec)


def _scenes(step: int, options: WorldOptions, rng: np.random.Generator) -> list[Scene]:
    """A step's scenes; each is drawn once only, and none of them is in a study."""
    scene_options = SceneOptions(seconds=options.seconds, event_seconds=options.event_seconds)
    seed = options.scene_seed
    chosen = []
    for index in range(step * options.batch_size, (step + 1) * options.batch_size):
        if rng.random() < options.still_share:
            chosen.append(still_scene(index, seed=seed, split="train"))
        else:
            chosen.append(video_scene(index, seed=seed, split="train", options=scene_options))
    return chosen


class _Told(NamedTuple):
    """A scene as the model is asked about it: its symbols, when each frame is, question and answer."""

    symbols: Tensor
    seconds: Tensor
    question: list[int]
    answer: list[int]


def _told(scene: Scene, grid: int, options: WorldOptions, codec: WordCodec) -> _Told:
    seconds = np.zeros(1)
    if scene.milliseconds:
        seconds = chosen_seconds(scene.seconds, frames_per_second=1.0, max_frames=options.max_frames)
    seconds = seconds.astype(np.float32)
    return _Told(
        torch.from_numpy(scene_symbols(scene, seconds, grid)),
        torch.from_numpy(seconds),
        codec.encode(plain_words(scene.question.text)),
        codec.encode(plain_words(scene.question.answer)),
    )


def _loss(model: Qwen3ForCausalLM, reader: SymbolReader, codec: WordCodec, scenes: Sequence[_Told]) -> AnswerLoss:
    """Losses of the answers' words and ends; a row is what is told, the question, start and answer."""
    embed = model.get_input_embeddings()
    rows = []
    for scene in scenes:
        words = torch.tensor([*scene.question, *codec.start_ids, *scene.answer])
        rows.append(torch.cat([reader(scene.symbols, scene.seconds), embed(words)]))
    joined = pad_left(rows, [torch.arange(len(row)) for row in rows])
    return answer_loss(model, joined, [scene.answer for scene in scenes], end_id=codec.end_id)


def load_word_model(folder: Path) -> LanguageModel:
    """Load what `pretrain_word_model` wrote."""
    try:
        words = json.loads((folder / WORDS_FILE).read_text(encoding="utf-8"))["words"]
        marks = load_file(folder / MARKS_FILE)["marks"]
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise LabError(f"{folder} holds no model of words ({error}); delete it to make it again") from error
    return LanguageModel("words", model.eval(), WordCodec(words=words), weights_sha256(model), place_marks=marks)


def _network() -> Qwen3ForCausalLM:
    # The words themselves come with the pictures, which are not fetched for a shape.
    return _build(WorldOptions(), WordCodec(words=[str(number) for number in range(NUM_WORDS)]))


WORDS = OwnLanguageModel(
    default_steps=WorldOptions().steps,
    folder=word_model_folder,
    pretrain=pretrained_word_model,
    load=load_word_model,
    network=_network,
    write=plain_words,
    write_spoken=plain_words,
)
