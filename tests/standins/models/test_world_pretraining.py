from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.parts.media_tokens import Seen, VisualTokens
from lab.parts.visual_projectors import build_visual_projector
from lab.training.named_parts import OWN_LANGUAGE_MODELS, open_language_model, transcript_writer, writer_of
from standins.models import world_pretraining
from standins.models.world_pretraining import (
    SymbolReader,
    WorldOptions,
    load_word_model,
    plain_words,
    pretrain_word_model,
    vocabulary,
    word_model_folder,
)
from standins.scenes import casts as scene_casts
from standins.scenes.casts import cast_of
from standins.scenes.questions import still_scene, video_scene
from tests.parts.tiny_models import language_model as tiny_language_model
from tests.standins.scene_pictures import stand_ins
from tests.training.runs import interrupt

TINY = WorldOptions(hidden_size=16, num_hidden_layers=1, steps=3, batch_size=4, warmup_steps=1)


@pytest.fixture(autouse=True)
def cast(monkeypatch: pytest.MonkeyPatch) -> None:
    casts = {split: cast_of(stand_ins(), split) for split in ("train", "dev", "test")}
    for module in (scene_casts, __import__("standins.scenes.questions", fromlist=["x"])):
        monkeypatch.setattr(module, "standard_cast", casts.__getitem__)
    monkeypatch.setattr(world_pretraining, "_VOCABULARY_SCENES", 300)


def test_the_vocabulary_has_every_word_of_later_questions_and_choices() -> None:
    words = set(vocabulary())
    for split in ("train", "dev", "test"):
        for index in range(5000, 5100):
            for scene in (video_scene(index, seed=1, split=split), still_scene(index, seed=1, split=split)):
                for text in (scene.question.text, *scene.question.choices):
                    assert set(plain_words(text).split()) <= words


def test_one_seed_gives_the_same_model_and_it_can_be_asked(tmp_path: Path) -> None:
    for name in ("first", "second"):
        pretrain_word_model(tmp_path / name, TINY)
    first, second = (load_word_model(tmp_path / name) for name in ("first", "second"))
    assert first.sha256 == second.sha256
    assert first.place_marks is not None
    assert torch.equal(first.place_marks, second.place_marks)
    assert first.codec.encode("which came first")


def test_a_pretraining_that_was_interrupted_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain_word_model(tmp_path / "whole", TINY)
    checkpoint = tmp_path / "words.checkpoint"
    with monkeypatch.context() as patch:
        interrupt(world_pretraining, "_loss", 3, patch)
        with pytest.raises(KeyboardInterrupt):
            pretrain_word_model(tmp_path / "never", TINY, checkpoint=checkpoint)
    assert checkpoint.exists()
    pretrain_word_model(tmp_path / "resumed", TINY, checkpoint=checkpoint)
    assert load_word_model(tmp_path / "whole").sha256 == load_word_model(tmp_path / "resumed").sha256


def test_training_lowers_the_loss_on_scenes_never_seen(tmp_path: Path) -> None:
    told: list[float] = []
    options = replace(TINY, steps=100, batch_size=16, learning_rate=3e-3)
    pretrain_word_model(tmp_path / "model", options, progress=lambda done, total, loss: told.append(loss))
    # Every scene is drawn once, so each step's loss is on new ones; told are means of the first 50 and of all 100.
    assert told[-1] < 0.9 * told[0]


def test_no_scene_of_the_pretraining_is_in_a_study() -> None:
    rng = np.random.default_rng(0)
    seeds = {scene.id.split("-")[1] for scene in world_pretraining._scenes(0, WorldOptions(), rng)}
    assert seeds == {"11"}


def test_the_reader_marks_places_as_a_projector_does() -> None:
    torch.manual_seed(0)
    reader = SymbolReader(8)
    tokens = VisualTokens(projector=build_visual_projector("mlp", hidden_size=4, output_size=8), marks_places=True)
    assert tokens.marks is not None
    tokens.marks.load_state_dict({"weight": reader.marks.weight})
    seconds = [0.0, 1.5]
    told = torch.zeros(2, 3, 3, reader.symbols.in_features)
    marked = reader(told, torch.tensor(seconds)) - reader.symbols.bias
    features = torch.zeros(2, 3, 3, 4)
    plain = tokens.projector(features).flatten(0, 1)
    assert torch.allclose(tokens([Seen(views=features, seconds=seconds)])[0] - plain, marked, atol=1e-5)


def test_more_steps_are_another_model() -> None:
    assert word_model_folder(10) != word_model_folder(11)


def test_words_are_opened_by_their_name_and_pretrained_for_as_many_steps_as_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain_word_model(tmp_path / "words", TINY)
    asked = []

    def pretrain(*, steps: int) -> Path:
        asked.append(steps)
        return tmp_path / "words"

    monkeypatch.setitem(OWN_LANGUAGE_MODELS, "words", lambda: replace(world_pretraining.WORDS, pretrain=pretrain))
    assert open_language_model("words", pretraining_steps=3).name == "words"
    assert open_language_model("words").name == "words"
    assert asked == [3, WorldOptions().steps]


def test_texts_are_written_as_each_language_model_writes() -> None:
    characters = tiny_language_model(alphabet="ab")
    assert writer_of(replace(characters, codec=None, name="words"))("What moves?") == "what moves"
    assert writer_of(characters)("Room 12, twice.") == "room 12 twice"
    assert transcript_writer("character")("Room 12, twice.") == ""
    assert writer_of(replace(characters, codec=None, name="Qwen/Qwen2.5-0.5B"))(" What moves? ") == "What moves?"
