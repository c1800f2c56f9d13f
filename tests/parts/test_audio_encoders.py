import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, WhisperConfig, WhisperFeatureExtractor, WhisperModel

from lab.errors import LabError
from lab.parts.audio_encoders import AudioEncoder, load_audio_encoder

WINDOW_FRAMES = 100  # a window of 2 s instead of 30
WINDOWS = ("padded", "cropped")


def whisper_model(num_mel_bins: int = 80, max_source_positions: int = WINDOW_FRAMES) -> WhisperModel:
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=8,
        num_mel_bins=num_mel_bins,
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=max_source_positions,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model = WhisperModel(config).eval()
    for parameter in model.encoder.parameters():
        # At the usual 0.02 attention is all but uniform, and a leak through it would go unseen.
        parameter.data.mul_(3)
    return model


def encoder(window: str, model: WhisperModel | None = None, margin_frames: int = 5) -> AudioEncoder:
    whisper = (model or whisper_model()).encoder
    one = AudioEncoder(
        whisper=whisper,
        feature_extractor=WhisperFeatureExtractor(feature_size=whisper.config.num_mel_bins),
        window=window,
    ).freeze()
    one.margin_frames = margin_frames
    return one


def clip(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


def close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


every_window = pytest.mark.parametrize("window", WINDOWS)


@every_window
@pytest.mark.parametrize("num_samples", [400, 640, 641, 16_000, 31_999, 32_000])
def test_a_clip_has_a_frame_for_every_320_samples_begun(window: str, num_samples: int) -> None:
    features = encoder(window).encode(clip(num_samples))
    assert features.shape == (math.ceil(num_samples / 320), 16)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_padded_features_are_transformers_own() -> None:
    model = whisper_model(max_source_positions=1500)
    extractor = WhisperFeatureExtractor()
    wave = clip(20_000)
    mels = extractor(wave, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = model.encoder(mels).last_hidden_state[0, :63].numpy()
    close(encoder("padded", model).encode(wave), expected)


def test_a_cropped_clip_is_an_encoder_with_a_shorter_position_table() -> None:
    model = whisper_model()
    wave = clip(10_000)  # 32 frames and a margin of 5: 37 frames, 11,840 samples
    short = whisper_model(max_source_positions=37)
    state = model.encoder.state_dict()
    state["embed_positions.weight"] = state["embed_positions.weight"][:37]
    short.encoder.load_state_dict(state)
    mels = WhisperFeatureExtractor()(
        wave, sampling_rate=16_000, return_tensors="pt", padding="max_length", max_length=11_840
    ).input_features
    with torch.no_grad():
        expected = short.encoder(mels).last_hidden_state[0, :32].numpy()
    close(encoder("cropped", model).encode(wave), expected)


def test_padded_and_cropped_differ_a_little_and_not_at_all_on_a_full_window() -> None:
    # How far they differ on real weights and speech is measured in the log of the ablations.
    model = whisper_model()
    waves = [clip(16_000), clip(32_000, seed=1)]
    padded, cropped = (list(map(encoder(window, model).encode, waves)) for window in WINDOWS)
    difference = np.linalg.norm(padded[0] - cropped[0]) / np.linalg.norm(padded[0])
    assert 1e-4 < difference < 0.5
    close(padded[1], cropped[1])


@every_window
def test_a_clips_features_do_not_depend_on_its_batch_but_for_rounding(window: str) -> None:
    one = encoder(window)
    waves = [clip(n, seed) for seed, n in enumerate([9000, 400, 31_000, 16_000, 9001, 20_000])]
    together, lengths = one(*one.front_end(waves))
    for wave, row, length in zip(waves, together, lengths.tolist(), strict=True):
        close(one.encode(wave), row[:length].numpy())


@every_window
def test_audio_over_a_window_is_encoded_in_consecutive_windows_and_joined(window: str) -> None:
    one = encoder(window)
    wave = clip(64_400)  # 2 s, 2 s, and 400 samples
    features = one.encode(wave)
    assert features.shape == (202, 16)
    close(features[:100], one.encode(wave[:32_000]))
    close(features[100:200], one.encode(wave[32_000:64_000]))
    close(features[200:], one.encode(wave[64_000:]))


@every_window
def test_a_last_window_shorter_than_the_spectrograms_own_is_encoded(window: str) -> None:
    features = encoder(window).encode(clip(32_100))
    assert features.shape == (101, 16)
    assert np.isfinite(features).all()


@every_window
def test_forward_trains_the_encoder(window: str) -> None:
    one = encoder(window).requires_grad_(True).train()
    one.whisper.embed_positions.requires_grad_(False)
    features, lengths = one(*one.front_end([clip(9000), clip(4000, seed=1)]))
    assert features.shape == (2, 29, 16)
    assert lengths.tolist() == [29, 13]
    features[:, :13].square().sum().backward()
    for name, parameter in one.named_parameters():
        assert name == "whisper.embed_positions.weight" or (parameter.grad is not None and parameter.grad.any()), name


def test_forward_and_encode_agree() -> None:
    one = encoder("cropped")
    waves = [clip(9000), clip(4000, seed=1)]
    features, lengths = one(*one.front_end(waves))
    for row, length, expected in zip(features, lengths.tolist(), map(one.encode, waves), strict=True):
        close(row[:length].numpy(), expected)


def test_encoding_under_autocast_works() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder("cropped").encode(clip(4000)).dtype == np.float32


def test_freeze_stops_gradients() -> None:
    one = encoder("cropped").requires_grad_(True).train().freeze()
    assert not one.training
    assert not any(parameter.requires_grad for parameter in one.parameters())


def test_one_seed_repeats_exactly() -> None:
    first, second = (encoder("cropped").encode(clip(4000)) for _ in range(2))
    assert np.array_equal(first, second)


def test_facts_of_the_encoder() -> None:
    one = encoder("padded", whisper_model(num_mel_bins=128))
    assert (one.hidden_size, one.frames_per_second, one.max_frames) == (16, 50.0, WINDOW_FRAMES)
    assert one.front_end([clip(4000)])[0].shape == (1, 128, 200)


def test_the_key_changes_with_whatever_features_depend_on() -> None:
    model = whisper_model()
    other = whisper_model()
    other.encoder.layer_norm.bias.data[0] += 1
    keys = {
        encoder("padded", model).key,
        encoder("cropped", model).key,
        encoder("cropped", model, margin_frames=6).key,
        encoder("cropped", other).key,
        encoder("cropped", whisper_model(num_mel_bins=128)).key,
    }
    assert len(keys) == 5
    assert encoder("cropped", model).key == encoder("cropped").key
    # A margin that is not used is no part of the key.
    assert encoder("padded", model, margin_frames=6).key == encoder("padded", model).key


@every_window
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (clip(0), r"waveform 1 has 0 samples; the spectrogram needs at least 400 \(25 ms\)"),
        (clip(399), "waveform 1 has 399 samples"),
        (clip(800).reshape(2, 400), r"waveform 1 has shape \(2, 400\); expected one channel"),
    ],
)
def test_a_clip_that_cannot_be_encoded_is_named(window: str, bad: np.ndarray, message: str) -> None:
    with pytest.raises(LabError, match=message):
        encoder(window).front_end([clip(4000), bad])
    with pytest.raises(LabError, match=message.replace("waveform 1", "waveform 0")):
        encoder(window).encode(bad)


def test_the_front_end_refuses_what_only_encode_can_cut() -> None:
    with pytest.raises(LabError, match="waveform 1 has 101 encoder frames; one window holds 100"):
        encoder("cropped").front_end([clip(4000), clip(32_001)])


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(LabError, match="unknown window 'half'; choose one of: padded, cropped"):
        encoder("half")
    with pytest.raises(LabError, match="the front end gives 80 mel bins; the encoder expects 128"):
        AudioEncoder(
            whisper=whisper_model(num_mel_bins=128).encoder,
            feature_extractor=WhisperFeatureExtractor(),
            window="padded",
        )


# Loading.


@pytest.mark.parametrize("num_mel_bins", [80, 128])
def test_a_local_folder_is_loaded_with_its_own_front_end(tmp_path: Path, num_mel_bins: int) -> None:
    model = whisper_model(num_mel_bins=num_mel_bins)
    model.save_pretrained(tmp_path)
    without = load_audio_encoder(tmp_path, window="cropped")
    WhisperFeatureExtractor(feature_size=num_mel_bins, dither=0.0).save_pretrained(tmp_path)
    loaded = load_audio_encoder(str(tmp_path), window="cropped")
    assert loaded.key == without.key == encoder("cropped", model, 25).key
    close(loaded.encode(clip(4000)), encoder("cropped", model, 25).encode(clip(4000)))


def test_a_front_end_saved_with_the_weights_is_used(tmp_path: Path) -> None:
    whisper_model(num_mel_bins=128).save_pretrained(tmp_path)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(tmp_path)
    with pytest.raises(LabError, match="the front end gives 80 mel bins; the encoder expects 128"):
        load_audio_encoder(tmp_path, window="padded")


def test_what_is_not_a_whisper_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    BertConfig(hidden_size=8).save_pretrained(tmp_path)
    with pytest.raises(LabError, match="is a bert model; expected Whisper"):
        load_audio_encoder(tmp_path, window="padded")
    with pytest.raises(LabError, match=r"cannot load audio encoder '.*nowhere'.*expected one of whisper_tiny_en"):
        load_audio_encoder(tmp_path / "nowhere", window="padded")
