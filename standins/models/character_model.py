"""The project's own character language model: real sentences, read aloud as noisy pronunciations.

The `cpu` rung's stand-in for the paper's LLM (section 3.3). It learns English spelling from real text and, because an
LM of this size has never met anything but characters, also to read a prefix of embeddings: a linear reader, thrown away
afterwards, turns windows of noisy phoneme frames into prefix tokens, and the model writes the sentence. The projectors
that are studied later never see the reader.

One recipe: its key is the hash of the options, the text and the recipe's version; `python -m standins pretrain` and
the first study that needs it make it, everybody else opens it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from lab.data import fetch, splits
from lab.data.splits import is_reserved, split_of
from lab.errors import LabError
from lab.parts.joined_sequences import IGNORE_INDEX
from lab.parts.language_models import CHARACTER_FILE, CharacterCodec, LanguageModel, TextCodec, load_language_model
from lab.paths import cache_dir, write_whole
from lab.training.checkpoints import Checkpoint
from lab.training.loop import TrainingOptions, drawn_in_order, mean_loss, tell_recent_loss, train
from lab.training.named_parts import OwnLanguageModel
from standins import texts
from standins.models.kept_model import kept_folder, made_model, write_description
from standins.speech import amazon_queen
from standins.speech.espeak import PHONEMES, VOWELS, WORD_BOUNDARY, phonemes
from standins.texts import TEXT_SOURCES, TrainingText, available_text_sources, sentences, to_alphabet, training_text

# Raise it when the same options and text would give another model.
RECIPE_VERSION = 1
DEFAULT_STEPS = 5500
_MAX_HELD_OUT = 400
ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
CHECKPOINT_EVERY = 500
"""Steps of a pretraining between its checkpoints."""
NUM_PHONEMES = len(PHONEMES)
_INDEX = {phoneme: i for i, phoneme in enumerate(PHONEMES)}
_IS_VOWEL = np.array([phoneme in VOWELS for phoneme in PHONEMES])
_BOUNDARY = _INDEX[WORD_BOUNDARY]

# Mean frames of a vowel and of a consonant (92 and 74 ms), and how far they scatter (log-normal).
_VOWEL_FRAMES, _CONSONANT_FRAMES, _SCATTER = 4.6, 3.7, 0.35
# A speaker is up to this much faster or slower than the mean.
_SLOWEST, _FASTEST = 1.35, 0.7
# Most word boundaries are not heard; a pause lasts up to 8 frames.
_UNHEARD_BOUNDARIES, _LONGEST_PAUSE = 0.6, 8.0
_SUBSTITUTED_SHARE = 0.6


@dataclass(frozen=True)
class Pronunciation:
    """The phonemes of a sentence as indices into `PHONEMES`."""

    indices: ndarray

    @classmethod
    def of(cls, sentence: str) -> "Pronunciation":
        """Look up a sentence's phonemes (General American)."""
        return cls(np.array([_INDEX[phoneme] for phoneme in phonemes(sentence)], dtype=np.int64))

    def frames(
        self, rng: np.random.Generator, *, error_rate: float, variation: float = 1.0
    ) -> Float[ndarray, "frames phonemes"]:
        """Say it once: each phoneme lasts some frames, runs into its neighbours, and is now and then misheard.

        Of `error_rate` (0 to 1), three fifths are substitutions and the rest phonemes cut short or lost. `variation`
        (0 to 1) scales how far tempo, lengths and pauses differ from one telling to the next.
        """
        heard = self.indices.copy()
        count = len(heard)
        tempo = 1 + variation * (rng.uniform(_FASTEST, _SLOWEST) - 1)
        mean = np.where(_IS_VOWEL[heard], _VOWEL_FRAMES, _CONSONANT_FRAMES)
        frames = mean * tempo * np.exp(_SCATTER * variation * rng.standard_normal(count))
        boundary = heard == _BOUNDARY
        pauses = rng.uniform(1, _LONGEST_PAUSE, count) * (rng.random(count) >= _UNHEARD_BOUNDARIES)
        frames[boundary] = pauses[boundary] * variation
        luck = rng.random(count)
        substituted = luck < error_rate * _SUBSTITUTED_SHARE
        heard[substituted] = rng.integers(1, NUM_PHONEMES, int(substituted.sum()))
        shortened = (luck < error_rate) & ~substituted
        frames[shortened] *= rng.random(int(shortened.sum()))
        lengths = np.maximum(np.round(frames), np.where(boundary | shortened, 0, 1)).astype(np.int64)
        sequence = np.repeat(heard, lengths)
        if len(sequence) == 0:
            sequence = np.array([_BOUNDARY])
        one_hot = np.zeros((len(sequence), NUM_PHONEMES), dtype=np.float32)
        one_hot[np.arange(len(sequence)), sequence] = 1
        blurred = one_hot.copy()
        blurred[1:] += 0.5 * one_hot[:-1]
        blurred[:-1] += 0.5 * one_hot[1:]
        noise = np.float32(0.02 + 0.15 * error_rate)
        return blurred / 2 + noise * rng.standard_normal(blurred.shape, dtype=np.float32)


def stack_frames(
    frames: Float[ndarray, "frames channels"], rate: int, *, offset: int = 0
) -> Float[ndarray, "windows stacked"]:
    """Lay `rate` frames side by side, the first window beginning `offset` frames before the audio; ends are zeros.

    Five frames 0..4 at rate 2 and offset 1 give the windows (. 0) (1 2) (3 4).
    """
    num_windows = -(-(len(frames) + offset) // rate)
    padded = np.zeros((num_windows * rate, frames.shape[1]), dtype=np.float32)
    padded[offset : offset + len(frames)] = frames
    return padded.reshape(num_windows, -1)


def pronounce(sentences: Sequence[str]) -> dict[str, Pronunciation]:
    """The pronunciation of each distinct sentence."""
    return {sentence: Pronunciation.of(sentence) for sentence in dict.fromkeys(sentences)}


@dataclass(frozen=True, kw_only=True)
class PretrainingOptions:
    """Size and schedule of the character model; `batch_tokens` counts sequence positions.

    Small batches matter: at the same number of tokens, batches of 500 positions learned to attend to the prefix in a
    quarter of the time that batches of 1,700 took.
    """

    hidden_size: int = 192
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    steps: int = 4500
    batch_tokens: int = 500
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    constant_share: float = 0.4
    ramp_share: float = 0.4
    max_error_rate: float = 0.4
    text_only_share: float = 0.08
    rates: tuple[int, ...] = (2, 4, 8)
    shortest_limit: int = 18
    longest_limit: int = 80
    frames_per_token: int = 4
    seed: int = 0


class PhonemeReader(nn.Module):
    """One linear layer a rate: a window of phoneme frames to one prefix token."""

    def __init__(self, *, rates: Sequence[int], output_size: int) -> None:
        super().__init__()
        self.readers = nn.ModuleDict({str(rate): nn.Linear(rate * NUM_PHONEMES, output_size) for rate in rates})

    def forward(self, windows: torch.Tensor, rate: int) -> torch.Tensor:
        """Prefix tokens of windows stacked at `rate`."""
        return self.readers[str(rate)](windows)


def build_character_model(options: PretrainingOptions, codec: TextCodec) -> Qwen3ForCausalLM:
    """A small Qwen3 from a seed.

    Qwen3 for its normalised queries and keys, and weights of std 0.06 rather than 0.02: both make a model this narrow
    find the alignment between prefix and text sooner. RoPE's base is 1,000: positions are 20 ms frames, at most some
    hundreds.
    """
    torch.manual_seed(options.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=codec.vocab_size,
            hidden_size=options.hidden_size,
            intermediate_size=int(options.hidden_size * 8 / 3) // 32 * 32,
            num_hidden_layers=options.num_hidden_layers,
            num_attention_heads=options.num_attention_heads,
            num_key_value_heads=options.num_attention_heads,
            head_dim=options.hidden_size // options.num_attention_heads,
            max_position_embeddings=8192,
            bos_token_id=codec.start_ids[0],
            eos_token_id=codec.end_id,
            pad_token_id=codec.end_id,
            tie_word_embeddings=False,
            initializer_range=0.06,
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        )
    )


@dataclass(frozen=True)
class _Batch:
    """Sentences with their stacked frames; `rate` is `None` for sentences without a prefix."""

    sentences: list[str]
    windows: list[np.ndarray]
    rate: int | None


def _draw(
    sentences: list[str],
    lengths: np.ndarray,
    pronunciations: dict[str, Pronunciation],
    options: PretrainingOptions,
    rng: np.random.Generator,
    progress: float,
) -> _Batch:
    """Draw neighbours in length; sentences, tempo and errors grow from easy to full over `ramp_share` of the run."""
    ramp = min(1.0, progress / options.ramp_share)
    limit = options.shortest_limit + (options.longest_limit - options.shortest_limit) * ramp
    reach = max(min(200, len(sentences)), int(np.searchsorted(lengths, limit, side="right")))
    candidates = np.sort(rng.integers(0, reach, 64))
    rate = int(rng.choice(options.rates))
    chosen: list[str] = []
    tokens = 0.0
    for index in candidates[int(rng.integers(0, 64)) :]:
        if tokens >= options.batch_tokens:
            break
        chosen.append(sentences[index])
        tokens += len(sentences[index]) * (1 + options.frames_per_token / rate)
    error_rate = options.max_error_rate * ramp
    windows = []
    for sentence in chosen:
        frames = pronunciations[sentence].frames(rng, error_rate=error_rate * rng.random(), variation=ramp)
        windows.append(stack_frames(frames, rate, offset=int(rng.integers(0, rate))))
    return _Batch(chosen, windows, None if rng.random() < options.text_only_share else rate)


def _loss(
    model: Qwen3ForCausalLM, reader: PhonemeReader, codec: CharacterCodec, batch: _Batch, frames_per_token: int
) -> torch.Tensor:
    """Mean loss of the characters and ends of a batch, nats; layout and positions as in `OmniModel`."""
    embed = model.get_input_embeddings()
    prefixes: Sequence[torch.Tensor] = [torch.zeros(0, model.config.hidden_size)] * len(batch.sentences)
    if batch.rate is not None:
        flat = reader(torch.from_numpy(np.concatenate(batch.windows)), batch.rate)
        prefixes = flat.split([len(windows) for windows in batch.windows])
    rows, labels, positions = [], [], []
    for prefix, sentence in zip(prefixes, batch.sentences, strict=True):
        ids = codec.encode(sentence)
        rows.append(torch.cat([prefix, embed(torch.tensor([*codec.start_ids, *ids]))]))
        labels.append(torch.tensor([IGNORE_INDEX] * len(prefix) + [*ids, codec.end_id]))
        rate = batch.rate or 1
        audio = torch.arange(len(prefix)) * rate + rate // 2
        positions.append(torch.cat([audio, torch.arange(len(ids) + 1) * frames_per_token]))
    pad = nn.utils.rnn.pad_sequence
    logits = model(
        inputs_embeds=pad(rows, batch_first=True),
        position_ids=pad(positions, batch_first=True),
        attention_mask=pad([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True),
        use_cache=False,
    ).logits
    padded_labels = pad(labels, batch_first=True, padding_value=IGNORE_INDEX)
    return F.cross_entropy(logits.flatten(0, 1), padded_labels.flatten(), ignore_index=IGNORE_INDEX)


@torch.no_grad()
def held_out_losses(
    model: Qwen3ForCausalLM,
    reader: PhonemeReader,
    codec: CharacterCodec,
    sentences: Sequence[str],
    options: PretrainingOptions,
) -> dict[str, float]:
    """Nats a character on sentences never trained on: as text alone, and from a noisy pronunciation at each rate."""
    rng = np.random.default_rng(options.seed)
    pronunciations = pronounce(sentences)
    losses: dict[str, float] = {}
    for rate in (None, *options.rates):
        total, count = 0.0, 0
        for start in range(0, len(sentences), 32):
            chosen = list(sentences[start : start + 32])
            frames = [pronunciations[s].frames(rng, error_rate=options.max_error_rate / 2) for s in chosen]
            batch = _Batch(chosen, [stack_frames(f, rate or 1) for f in frames], rate)
            characters = sum(len(sentence) + 1 for sentence in chosen)
            total += float(_loss(model, reader, codec, batch, options.frames_per_token)) * characters
            count += characters
        losses["text" if rate is None else f"pronounced_rate_{rate}"] = total / count
    return losses


def pretrain_character_model(
    training_sentences: Sequence[str],
    held_out_sentences: Sequence[str],
    folder: Path,
    options: PretrainingOptions,
    *,
    text_manifest: dict[str, object],
    checkpoint: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> dict[str, object]:
    """Pretrain on `training_sentences`, write the model to `folder` and return its description.

    The description, in the folder's `characters.json`: alphabet, options, what it was trained on, held-out losses.
    An interrupted pretraining goes on from `checkpoint`, with the same batches that it would have seen.

    Raises:
        LabError: no sentence in the alphabet and within `longest_limit`, or a loss that is not finite.
    """
    codec = CharacterCodec(alphabet=ALPHABET)
    usable = sorted(_in_alphabet(training_sentences, options.longest_limit), key=lambda s: (len(s), s))
    held_out = _in_alphabet(held_out_sentences, options.longest_limit)
    if not usable or not held_out:
        raise LabError(
            f"the character model needs sentences of at most {options.longest_limit} characters of {ALPHABET!r}: "
            f"{len(usable)} to train on, {len(held_out)} held out"
        )
    model = build_character_model(options, codec)
    reader = PhonemeReader(rates=options.rates, output_size=options.hidden_size)
    lengths = np.array([len(sentence) for sentence in usable])
    pronunciations = pronounce(usable)

    def draw() -> Iterator[_Batch]:
        rng = np.random.default_rng(options.seed)
        for step in range(options.steps):
            yield _draw(usable, lengths, pronunciations, options, rng, step / options.steps)

    def learning_rate(step: int) -> list[float]:
        done = step / options.steps
        decay = 1.0 if done < options.constant_share else max(0.02, (1 - done) / (1 - options.constant_share))
        return [options.learning_rate * min(1.0, (step + 1) / options.warmup_steps) * decay]

    batches = drawn_in_order(draw())
    train(
        nn.ModuleDict({"model": model, "reader": reader}),
        lambda step: mean_loss(_loss(model, reader, codec, batches(step), options.frames_per_token)),
        # Not fused: every result of the character model was measured with weights that were made so.
        TrainingOptions(checkpoint_every=CHECKPOINT_EVERY, precision="float32", fused=False),
        steps=options.steps,
        learning_rates=learning_rate,
        checkpoint=Checkpoint(path=checkpoint, key=checkpoint.stem) if checkpoint else None,
        describe="the character model",
        on_step=tell_recent_loss(progress, options.steps, last=100, every=50),
    )
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    description: dict[str, object] = {
        "alphabet": ALPHABET,
        "frames_per_token": options.frames_per_token,
        "options": asdict(options),
        "text": text_manifest,
        "training_sentences": len(usable),
        "held_out_sentences": len(held_out),
        "held_out_loss": held_out_losses(model, reader, codec, held_out, options),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    disable_progress_bar()
    model.save_pretrained(folder)
    write_description(folder / CHARACTER_FILE, description)
    return description


def _in_alphabet(sentences: Sequence[str], longest: int) -> list[str]:
    allowed = set(ALPHABET)
    return [s for s in dict.fromkeys(sentences) if 2 <= len(s) <= longest and set(s) <= allowed]


def _text() -> TrainingText:
    """The training text; reading and splitting it takes seconds, so it is kept under a hash of all that makes it."""
    made_by = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in (texts, splits, amazon_queen)]
    packages = {name: fetch.packages()[TEXT_SOURCES[name][0]].sha256 for name in available_text_sources()}
    identity = json.dumps([packages, made_by, sorted(splits.reserved_hashes())])
    kept = cache_dir() / "texts" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
    if kept.exists():
        return TrainingText(**json.loads(kept.read_text(encoding="utf-8")))
    made = training_text(punctuation=False)
    try:
        write_whole(kept, json.dumps(asdict(made)))
    except OSError as error:
        raise LabError(f"the training text cannot be kept at {kept} ({error})") from None
    return made


def held_out_sentences() -> list[str]:
    """Development sentences of the same text sources, in the model's alphabet; never trained on."""
    sources = available_text_sources()
    found = [s for s in sentences(sources) if split_of(s) == "dev" and not is_reserved(s)]
    return [to_alphabet(sentence, punctuation=False) for sentence in found][:_MAX_HELD_OUT]


def character_model_folder(steps: int = DEFAULT_STEPS) -> Path:
    """Where the model of that many steps lies, whether it is there yet or not."""
    options = PretrainingOptions(steps=steps, warmup_steps=min(50, steps))
    return kept_folder("language_models", "character", RECIPE_VERSION, asdict(options), _text().manifest["sha256"])


def pretrained_character_model(
    *, steps: int = DEFAULT_STEPS, progress: Callable[[int, int, float], None] | None = None
) -> Path:
    """Return the model's folder; the first call pretrains it."""

    def make(folder: Path, checkpoint: Path) -> None:
        training = _text()
        options = PretrainingOptions(steps=steps, warmup_steps=min(50, steps))
        pretrain_character_model(
            training.sentences,
            held_out_sentences(),
            folder,
            options,
            text_manifest=training.manifest,
            checkpoint=checkpoint,
            progress=progress,
        )

    return made_model(character_model_folder(steps), "the character model", make)


def describe(folder: Path) -> dict[str, Any]:
    """What is recorded of a model: alphabet, options, text, held-out losses."""
    described: dict[str, Any] = json.loads((folder / "characters.json").read_text(encoding="utf-8"))
    return described


def spoken_text(text: str) -> str:
    """A transcript in the model's alphabet: lower case, no punctuation; empty where it does not fit."""
    plain = plain_text(text)
    return plain if set(plain) <= set(ALPHABET) else ""


def plain_text(text: str) -> str:
    """A text without punctuation, in lower case."""
    return to_alphabet(text, punctuation=False)


def _network() -> PreTrainedModel:
    return build_character_model(PretrainingOptions(), CharacterCodec(alphabet=ALPHABET))


def _load(folder: Path) -> LanguageModel:
    return load_language_model("character", folder=folder)


CHARACTER = OwnLanguageModel(
    default_steps=DEFAULT_STEPS,
    folder=character_model_folder,
    pretrain=pretrained_character_model,
    load=_load,
    network=_network,
    write=plain_text,
    write_spoken=spoken_text,
)
