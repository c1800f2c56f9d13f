import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lab.errors import LabError
from lab.parts.language_models import WordCodec
from lab.parts.media_tokens import NUM_WAVES
from standins.models.world_pretraining import MARKS_FILE, WORDS_FILE, load_word_model
from tests.parts.tiny_models import HIDDEN_SIZE, qwen3


def test_a_word_is_one_token_and_start_and_end_stand_behind_all_of_them() -> None:
    codec = WordCodec(words=("cat", "moves", "what"))
    assert codec.encode("what moves") == [2, 1]
    assert (codec.start_ids, codec.end_id, codec.vocab_size) == ([3], 4, 5)
    assert codec.decode([3, 0, 1, 4]) == "cat moves"


def test_an_unknown_word_is_named_with_what_to_do() -> None:
    message = "'dog' in 'a dog' is not in the language model's 2 words; ask in these, or choose a language"
    with pytest.raises(LabError, match=message):
        WordCodec(words=("a", "cat")).encode("a dog")


@pytest.mark.parametrize("words", [("cat", "cat"), ("a cat",), ("",)])
def test_a_vocabulary_holds_each_word_once_and_no_blank(words: tuple[str, ...]) -> None:
    with pytest.raises(LabError, match="each word once, and none with a blank"):
        WordCodec(words=words)


def test_a_folder_is_loaded_with_its_words_and_marks(tmp_path: Path) -> None:
    model = qwen3(vocab_size=4)
    model.save_pretrained(tmp_path)
    (tmp_path / WORDS_FILE).write_text(json.dumps({"words": ["cat", "dog"]}))
    marks = torch.randn(HIDDEN_SIZE, NUM_WAVES)
    save_file({"marks": marks}, tmp_path / MARKS_FILE)
    loaded = load_word_model(tmp_path)
    assert loaded.place_marks is not None
    assert torch.equal(loaded.place_marks, marks)
    assert loaded.codec.encode("dog") == [1]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.model.parameters(), strict=True))


def test_a_folder_without_a_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=f"{tmp_path} holds no model of words"):
        load_word_model(tmp_path)
