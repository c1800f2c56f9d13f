from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from lab.data.filters.semantic_duplicates import SENTENCE_ENCODERS, load_sentence_encoder
from lab.errors import LabError
from lab.paths import cache_dir
from tests.data.fakes import installed
from tests.data.tiny_encoder import WIDTH, write_tiny_encoder

TEXTS = ["what is this?", "你好吗", "a much longer question of many words about 42 things!", "x"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    load_sentence_encoder.cache_clear()


@torch.no_grad()
def slow_embedding(folder: Path, text: str) -> np.ndarray:
    """Mean over a text's own first 32 tokens, divided by its length, with transformers alone."""
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", truncation=True, max_length=32)
    mean = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0].mean(0)
    return (mean / mean.norm()).numpy()


def test_a_folder_of_the_librarys_form_embeds_as_its_parts_do(tmp_path):
    folder = write_tiny_encoder(tmp_path / "tiny")
    encoder = load_sentence_encoder(str(folder))
    rows = encoder(TEXTS)
    assert encoder.width == WIDTH
    assert rows.dtype == np.float32
    expected = np.stack([slow_embedding(folder, text) for text in TEXTS])
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_the_packages_folder_is_what_minilm_loads(tmp_path):
    package, folder = SENTENCE_ENCODERS["minilm"]
    write_tiny_encoder(installed(package, {}) / folder)
    assert load_sentence_encoder("minilm").name == "minilm"
    assert cache_dir() in (installed(package, {}) / folder).parents


def test_the_hash_moves_with_weights_and_lengths_and_nothing_else(tmp_path):
    first = load_sentence_encoder(str(write_tiny_encoder(tmp_path / "a")))
    before = first.sha256
    first(TEXTS)
    assert load_sentence_encoder(str(write_tiny_encoder(tmp_path / "b"))).sha256 == before
    assert load_sentence_encoder(str(write_tiny_encoder(tmp_path / "c", seed=1))).sha256 != before
    assert load_sentence_encoder(str(write_tiny_encoder(tmp_path / "d", max_tokens=16))).sha256 != before


def test_what_is_no_encoder_is_named_with_the_choices(tmp_path):
    with pytest.raises(LabError, match=r"sentence encoder '/nowhere/at/all': there is no such folder"):
        load_sentence_encoder("/nowhere/at/all")
    with pytest.raises(
        LabError, match=r"'no-such/encoder' cannot be loaded: .*; expected one of minilm, a local folder"
    ):
        load_sentence_encoder("no-such/encoder")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(LabError, match=r"cannot be loaded: .*; expected one of minilm"):
        load_sentence_encoder(str(tmp_path))


@pytest.mark.slow
def test_minilm_puts_paraphrases_nearer_than_other_questions(user_cache_dir, monkeypatch):
    package, _ = SENTENCE_ENCODERS["minilm"]
    if not (user_cache_dir / "packages" / f"{package}-0.1.0").exists():
        pytest.skip(f"{package} has not been fetched on this machine")
    monkeypatch.setenv("OMNI_LAB_CACHE", str(user_cache_dir))
    rows = load_sentence_encoder("minilm")(["How old are you?", "What is your age?", "Which animals eat grass?"])
    assert rows.shape == (3, 384)
    assert rows[0] @ rows[1] > 0.7 > 0.4 > rows[0] @ rows[2]
