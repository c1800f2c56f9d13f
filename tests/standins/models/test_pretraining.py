import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.errors import LabError
from lab.parts.language_models import CharacterCodec, load_language_model
from standins.models import character_model
from standins.models.character_model import (
    ALPHABET,
    PhonemeReader,
    PretrainingOptions,
    build_character_model,
    held_out_losses,
    pretrain_character_model,
)
from tests.training.runs import interrupt

TINY = PretrainingOptions(
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    steps=4,
    batch_tokens=60,
    warmup_steps=2,
    rates=(2, 4),
    seed=3,
)
TRAINING = ["a cat sat", "the dog ran", "we saw it", "he is here", "go home now", "it's late"]
HELD_OUT = ["a dog sat", "he ran home"]


def pretrain(
    folder: Path, options: PretrainingOptions = TINY, training: list[str] = TRAINING, held_out: list[str] = HELD_OUT
) -> dict[str, object]:
    return pretrain_character_model(training, held_out, folder, options, text_manifest={"sentences": len(training)})


def test_two_runs_of_one_seed_give_equal_weights_and_another_seed_others(tmp_path):
    first, second = pretrain(tmp_path / "a"), pretrain(tmp_path / "b")
    other = pretrain(tmp_path / "c", replace(TINY, seed=4))
    hashes = [load_language_model("character", folder=tmp_path / name).sha256 for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]
    assert first == second
    assert first["held_out_loss"] != other["held_out_loss"]


def test_a_pretraining_that_was_interrupted_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    pretrain(tmp_path / "whole")
    checkpoint = tmp_path / "character.checkpoint"
    options = {"options": TINY, "text_manifest": {}, "checkpoint": checkpoint}
    run = partial(pretrain_character_model, TRAINING, HELD_OUT, **options)
    with monkeypatch.context() as patch:
        interrupt(character_model, "_loss", 4, patch)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "never")
    assert checkpoint.exists()
    run(tmp_path / "resumed")
    hashes = [load_language_model("character", folder=tmp_path / name).sha256 for name in ("whole", "resumed")]
    assert hashes[0] == hashes[1]
    assert not checkpoint.exists()


def test_description_stands_beside_the_weights(tmp_path):
    folder = tmp_path / "models" / "character"
    description = pretrain(folder)
    written = json.loads((folder / "characters.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(description))
    assert written["alphabet"] == ALPHABET
    assert written["text"] == {"sentences": 6}
    assert written["options"]["seed"] == 3
    assert (written["training_sentences"], written["held_out_sentences"]) == (6, 2)
    assert set(written["held_out_loss"]) == {"text", "pronounced_rate_2", "pronounced_rate_4"}
    assert all(math.isfinite(loss) and loss > 0 for loss in written["held_out_loss"].values())
    loaded = load_language_model("character", folder=folder)
    assert loaded.frames_per_token == 4
    assert written["parameters"] == sum(parameter.numel() for parameter in loaded.model.parameters())
    assert [path.name for path in folder.parent.iterdir()] == ["character"]


def test_sentences_outside_the_alphabet_too_long_or_said_twice_are_left_out(tmp_path):
    strange = ["Capital", "42 of them", "naïve", "x", "", "a " * 41, "a cat sat"]
    description = pretrain(tmp_path / "a", training=TRAINING + strange, held_out=[*HELD_OUT, "No!"])
    assert (description["training_sentences"], description["held_out_sentences"]) == (6, 2)


def test_the_loss_falls_on_a_tiny_set(tmp_path):
    options = replace(TINY, steps=100, learning_rate=1e-2, ramp_share=1.0)
    means: list[float] = []
    pretrain_character_model(
        TRAINING,
        TRAINING,
        tmp_path / "a",
        options,
        text_manifest={},
        progress=lambda done, steps, loss: means.append(loss),
    )
    written = json.loads((tmp_path / "a" / "characters.json").read_text(encoding="utf-8"))
    # One of 30 tokens at random is 3.4 nats.
    assert len(means) == 2
    assert means[1] < 0.9 * means[0]
    assert written["held_out_loss"]["text"] < 2.5


def test_the_model_is_a_function_of_its_seed():
    codec = CharacterCodec(alphabet=ALPHABET)
    first, second = build_character_model(TINY, codec), build_character_model(TINY, codec)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.config.vocab_size == len(ALPHABET) + 2


def test_held_out_loss_of_text_is_that_of_a_slow_reference():
    codec = CharacterCodec(alphabet=ALPHABET)
    model = build_character_model(TINY, codec).eval()
    reader = PhonemeReader(rates=TINY.rates, output_size=TINY.hidden_size)
    total, count = 0.0, 0
    for sentence in HELD_OUT:
        ids = [*codec.start_ids, *codec.encode(sentence), codec.end_id]
        positions = torch.arange(len(ids) - 1)[None] * TINY.frames_per_token
        mask = torch.ones(1, len(ids) - 1, dtype=torch.long)
        with torch.no_grad():
            logits = model(torch.tensor([ids[:-1]]), position_ids=positions, attention_mask=mask).logits[0]
        for column, target in enumerate(ids[1:]):
            total -= float(logits[column].log_softmax(-1)[target])
            count += 1
    found = held_out_losses(model, reader, codec, HELD_OUT, TINY)
    assert found["text"] == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize(("training", "held_out"), [(["NO"], HELD_OUT), (TRAINING, [])])
def test_no_usable_sentence_is_refused(tmp_path, training, held_out):
    counts = rf"{len(TRAINING) if training is TRAINING else 0} to train on, {len(held_out)} held out"
    with pytest.raises(LabError, match=f"needs sentences of at most 80 characters of .*{counts}"):
        pretrain(tmp_path / "a", training=training, held_out=held_out)


def test_loss_that_is_not_finite_stops_before_anything_is_written(tmp_path, monkeypatch):
    broken = character_model._loss
    monkeypatch.setattr(character_model, "_loss", lambda *arguments: broken(*arguments) * np.nan)
    with pytest.raises(LabError, match=r"the loss is nan at step 0 of the character model, learning rate 0\.001"):
        pretrain(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
