import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from lab.errors import LabError
from lab.parts.audio_encoders import AUDIO_ENCODERS, SpeechRecognizer, load_speech_recognizer

SPECIAL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|zh|>",
    "<|transcribe|>",
    "<|notimestamps|>",
    "<|0.00|>",
]
LETTERS = [chr(k) for k in range(ord("a"), ord("y") + 1)]


class Letters:
    """A tokenizer of 25 letters and Whisper's special tokens behind them."""

    def get_vocab(self):
        return {sign: place for place, sign in enumerate([*LETTERS, *SPECIAL])}

    def decode(self, ids):
        return "".join(LETTERS[i] for i in ids)


def tiny_whisper(vocab_size: int = 32) -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=vocab_size,
        num_mel_bins=80,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_target_positions=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    whisper = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in whisper.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.5)
    return whisper


def recognizer(**options) -> SpeechRecognizer:
    given = {"whisper": tiny_whisper(), "tokenizer": Letters(), "language": "en", **options}
    return SpeechRecognizer(feature_extractor=WhisperFeatureExtractor(feature_size=80), **given)


def clips(*seconds: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(round(s * 16000)).astype(np.float32) * 0.1 for s in seconds]


def slow_transcript(found: SpeechRecognizer, clip: np.ndarray) -> str:
    """One clip, no cache, one token at a time, on the encoder's output; once more on 29 s where no end is found."""
    spoken = -(-len(clip) // 16000) * 16000
    for length in (spoken + 2 * 16000, 29 * 16000):
        features, lengths = found.encoder.front_end([np.pad(clip, (0, length - len(clip)))])
        frames, _ = found.encoder(features, lengths)
        ids = list(found.prompt_ids)
        with torch.no_grad():
            for _ in range(min(40 - len(ids), spoken // 16000 * 12 + 10)):
                logits = found.whisper(encoder_outputs=(frames,), decoder_input_ids=torch.tensor([ids])).logits[0, -1]
                logits[found.end_id + 1 :] = -torch.inf
                ids.append(int(logits.argmax()))
                if ids[-1] == found.end_id:
                    break
        if ids[-1] == found.end_id:
            break
    return found.tokenizer.decode([i for i in ids[len(found.prompt_ids) :] if i < found.end_id])


def test_a_transcript_is_that_of_greedy_decoding_whatever_else_is_in_the_batch():
    found = recognizer()
    waves = clips(0.3, 1.2, 0.9)
    together = found.transcribe(waves)
    assert together == [slow_transcript(found, wave) for wave in waves]
    assert together == [found.transcribe([wave])[0] for wave in waves]
    assert len(set(together)) > 1
    assert found.transcribe([]) == []


def test_no_special_token_is_ever_written():
    found = recognizer()
    with torch.no_grad():
        found.whisper.model.decoder.embed_tokens.weight[found.end_id + 1 :] *= 50
    assert all(sign in LETTERS for text in found.transcribe(clips(0.5, 2.0)) for sign in text)


def test_a_long_clip_is_cut_into_pieces_and_joined():
    found = recognizer()
    (wave,) = clips(30.0)
    pieces = found.transcribe([wave[: 27 * 16000], wave[27 * 16000 :]])
    assert found.transcribe([wave]) == [" ".join(filter(None, pieces))]


def test_only_a_multilingual_whisper_is_told_the_language():
    assert [([*LETTERS, *SPECIAL])[i] for i in recognizer().prompt_ids] == ["<|startoftranscript|>", "<|notimestamps|>"]
    many = recognizer(whisper=tiny_whisper(51_865), language="zh")
    assert [([*LETTERS, *SPECIAL])[i] for i in many.prompt_ids] == [
        "<|startoftranscript|>",
        "<|zh|>",
        "<|transcribe|>",
        "<|notimestamps|>",
    ]
    with pytest.raises(LabError, match="this Whisper writes English only, not 'zh'"):
        recognizer(language="zh")
    with pytest.raises(LabError, match=r"has no token '<\|fr\|>'"):
        recognizer(whisper=tiny_whisper(51_865), language="fr")


def test_the_key_tells_weights_and_language_apart():
    first, again = recognizer(), recognizer()
    assert first.key == again.key
    other = recognizer(whisper=tiny_whisper(51_865), language="zh")
    assert other.key != first.key


def test_a_corrected_tokenizer_or_front_end_is_another_recognizer_of_the_same_weights(tmp_path: Path):
    tiny_whisper().save_pretrained(tmp_path)
    front_end = WhisperFeatureExtractor(feature_size=80)
    front_end.save_pretrained(tmp_path)
    words = {"<unk>": 0, "<|startoftranscript|>": 1, "<|notimestamps|>": 2, "<|endoftext|>": 3, "a": 4, "b": 5}
    keys = []
    for spelt, hop_length in (("a", 160), ("a", 160), ("A", 160), ("A", 80)):
        written = {spelt if word == "a" else word: number for word, number in words.items()}
        plain = Tokenizer(models.WordLevel(written, unk_token="<unk>"))
        PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>").save_pretrained(tmp_path)
        WhisperFeatureExtractor(feature_size=80, hop_length=hop_length).save_pretrained(tmp_path)
        keys.append(load_speech_recognizer(tmp_path).key)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("bad", [np.zeros((2, 800), np.float32), np.zeros(0, np.float32)])
def test_a_clip_of_another_shape_is_named(bad):
    with pytest.raises(LabError, match=r"waveform 1 has shape .*; expected one channel of samples"):
        recognizer().transcribe([*clips(0.5), bad])


def test_foreign_models_are_named(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(LabError, match="is a bert model; expected Whisper"):
        load_speech_recognizer(tmp_path)
    with pytest.raises(
        LabError, match=r"cannot load speech recogniser .*nowhere.*expected one of whisper_tiny_en, whisper_base"
    ):
        load_speech_recognizer(tmp_path / "nowhere")
    assert set(AUDIO_ENCODERS) == {"whisper_tiny_en", "whisper_base"}
