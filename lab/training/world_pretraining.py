"""Pretraining of the vision studies' small language model: questions about scenes that are told to it in symbols.

The `cpu` rung's stand-in for what the paper's LLM (section 3) knows of the world before it sees any: what comes first,
which way a thing goes, how many there were. It learns it from scenes of the training side told by
`lab.data.scenes.symbols`, through a linear reader that is thrown away afterwards; no picture is seen, and none of the
projectors that are studied. Differs from the paper, whose LLM learned this from text: a language model of three layers
does not learn to compare moments from some thousand questions on features of an encoder.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from lab.data.fetch import packages
from lab.data.scenes.questions import video_scene
from lab.data.scenes.scene import Scene
from lab.data.scenes.stage import SceneOptions
from lab.data.scenes.stills import still_scene
from lab.data.scenes.symbols import NUM_SYMBOLS, scene_symbols
from lab.data.splits import SPLITS
from lab.data.text import to_alphabet
from lab.data.video.moments import chosen_seconds
from lab.errors import LabError
from lab.parts.joined_sequences import answer_loss, pad_left
from lab.parts.visual_tokens import NUM_WAVES, place_waves, token_places
from lab.parts.word_model import MARKS_FILE, WORDS_FILE, WordCodec
from lab.paths import cache_dir, make_folder
from lab.training.loop import has_fast_bfloat16
from lab.training.pretraining import PretrainingOptions, build_character_model

RECIPE_VERSION = 1
PICTURES = ("tuxpaint-stamps-default", "emoji-datasource-google", "emojibase-data")
_VOCABULARY_SCENES = 1500


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
    pinned = [packages()[name].sha256 for name in PICTURES]
    identity = json.dumps([RECIPE_VERSION, asdict(options), pinned], sort_keys=True)
    return cache_dir() / "language_models" / f"words-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _options(steps: int) -> WorldOptions:
    return WorldOptions(steps=steps, warmup_steps=min(50, steps))


def pretrained_word_model(*, steps: int, progress: Callable[[int, int, float], None] | None = None) -> Path:
    """Return the model's folder; the first call pretrains it.

    Raises:
        LabError: a package of pictures that cannot be fetched (their classes are needed), or a full disk.
    """
    return make_folder(
        word_model_folder(steps), lambda folder: pretrain_word_model(folder, _options(steps), progress=progress)
    )


def pretrain_word_model(
    folder: Path, options: WorldOptions, *, progress: Callable[[int, int, float], None] | None = None
) -> None:
    """Pretrain on one thread's worth of work and write the model; see the module's first lines."""
    codec = WordCodec(words=vocabulary())
    model = build_character_model(
        PretrainingOptions(
            hidden_size=options.hidden_size, num_hidden_layers=options.num_hidden_layers, seed=options.seed
        ),
        codec,
    )
    reader = SymbolReader(options.hidden_size)
    parameters = [*model.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, betas=(0.9, 0.98), fused=True)
    bfloat16 = has_fast_bfloat16(torch.device("cpu"))
    rng = np.random.default_rng(options.seed)
    model.train()
    recent: list[float] = []
    for step in range(options.steps):
        warm = min(1.0, (step + 1) / max(1, options.warmup_steps))
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * warm * cosine
        scenes = _scenes(step, options, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = _loss(model, reader, codec, scenes, options, rng)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise LabError(f"the loss is {value} at step {step} of the pretraining of the word model")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        recent = [*recent[-99:], value]
        if progress and ((step + 1) % 50 == 0 or step + 1 == options.steps):
            progress(step + 1, options.steps, sum(recent) / len(recent))
    _write(folder, model, reader, codec, options)


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


def _loss(
    model: Qwen3ForCausalLM,
    reader: SymbolReader,
    codec: WordCodec,
    scenes: Sequence[Scene],
    options: WorldOptions,
    rng: np.random.Generator,
) -> Tensor:
    """Mean loss of the answers' words and ends, nats; rows as in `lab.parts.omni_model`."""
    rows, answers = [], []
    embed = model.get_input_embeddings()
    for scene in scenes:
        seconds = np.zeros(1)
        if scene.milliseconds:
            seconds = chosen_seconds(scene.seconds, frames_per_second=1.0, max_frames=options.max_frames)
        grid = int(rng.choice(options.grids))
        told = torch.from_numpy(scene_symbols(scene, seconds.astype(np.float32), grid))
        seen = reader(told, torch.from_numpy(seconds.astype(np.float32)))
        answer = codec.encode(plain_words(scene.question.answer))
        words = torch.tensor([*codec.encode(plain_words(scene.question.text)), *codec.start_ids, *answer])
        rows.append(torch.cat([seen, embed(words)]))
        answers.append(answer)
    joined = pad_left(rows, [torch.arange(len(row)) for row in rows])
    losses = answer_loss(model, joined, answers, end_id=codec.end_id)
    return losses.loss.sum() / losses.num_tokens.sum()


def _write(
    folder: Path, model: Qwen3ForCausalLM, reader: SymbolReader, codec: WordCodec, options: WorldOptions
) -> None:
    try:
        disable_progress_bar()
        model.save_pretrained(folder)
        save_file({"marks": reader.marks.weight.detach().clone()}, folder / MARKS_FILE)
        description = {"words": codec.words, "options": asdict(options)}
        (folder / WORDS_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    except (SafetensorError, OSError) as error:
        raise LabError(f"the word model cannot be written to {folder} ({error})") from error
