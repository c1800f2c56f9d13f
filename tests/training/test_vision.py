import inspect
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import SiglipVisionModel

from lab.errors import LabError
from lab.parts.vision_encoders import VisionEncoder
from lab.training import named_parts
from lab.training.named_parts import check_vision_encoder, open_vision_encoder, vision_backbone_without_weights
from standins.models import vision_pretraining
from standins.models.contrastive import build_image_tower
from standins.models.vision_pretraining import TOWER_IMAGE_SIZE, pretrained_vision_tower, vision_tower_folder
from tests.standins.coloured_pictures import coloured_pictures
from tests.standins.models.test_packaged_efficientnet import install, packaged_state


def test_an_encoder_is_opened_frozen() -> None:
    encoder = open_vision_encoder("timm:test_vit", image_size=64, pretrained=False)
    assert (encoder.image_size, encoder.training) == (64, False)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_a_network_without_weights_is_that_of_the_opened_encoder(tmp_path: Path) -> None:
    install(packaged_state())
    siglip = tmp_path / "siglip"
    siglip.mkdir()
    build_image_tower("siglip_tiny", image_size=48).save(siglip)
    for name, options, opened in (
        ("timm:test_vit", {"image_size": 64}, {"pretrained": False}),
        ("efficientnet_lite0", {"image_size": 96, "stride": 32}, {}),
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


STEPS = 2


@pytest.fixture
def few_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Towers are trained for two steps on coloured squares."""
    pictures = coloured_pictures(tmp_path)
    monkeypatch.setattr(vision_pretraining, "stamps", lambda: [])
    monkeypatch.setattr(vision_pretraining, "emoji", lambda: pictures)
    monkeypatch.setattr(vision_pretraining, "DEFAULT_STEPS", STEPS)


def same_weights(first: VisionEncoder, second: VisionEncoder) -> bool:
    return first.weights_sha256 == second.weights_sha256


@pytest.mark.parametrize("tower", ["siglip_tiny", "timm:test_convnext", "timm:test_vit"])
@pytest.mark.usefixtures("few_pictures")
def test_a_tower_of_our_own_is_trained_at_the_first_call_and_untrained_is_what_it_began_as(tower: str) -> None:
    told: list[int] = []
    options = {"image_size": 64, "stride": 16}
    trained = open_vision_encoder(f"own:{tower}", progress=lambda done, *_: told.append(done), **options)
    assert told[-1] == STEPS
    assert vision_tower_folder(tower, steps=STEPS, image_size=64).is_dir()
    again = open_vision_encoder(f"own:{tower}", progress=lambda *_: pytest.fail("it was trained again"), **options)
    assert trained.key == again.key
    before = open_vision_encoder(f"untrained:{tower}", **options)
    assert not same_weights(trained, before)
    assert before.key != trained.key
    assert (trained.image_size, before.image_size) == (64, 64)
    assert trained.grid == before.grid
    for encoder in (trained, before):
        assert not encoder.training
        assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.usefixtures("few_pictures")
def test_a_towers_features_are_those_of_the_network_that_was_trained() -> None:
    encoder = open_vision_encoder("own:siglip_tiny", image_size=32)
    network = SiglipVisionModel.from_pretrained(vision_tower_folder("siglip_tiny", steps=STEPS, image_size=32))
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalised = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = network(pixel_values=normalised).last_hidden_state
        assert torch.allclose(encoder(pixels).flatten(1, 2), expected, atol=1e-5)


@pytest.mark.usefixtures("few_pictures")
def test_a_tower_of_another_size_is_another_one() -> None:
    small, large = (open_vision_encoder("own:timm:test_convnext", image_size=size) for size in (32, 64))
    assert not same_weights(small, large)
    assert (small.image_size, large.image_size) == (32, 64)


@pytest.mark.usefixtures("few_pictures")
def test_stride_and_feature_are_chosen_for_a_timm_tower_and_a_siglip_has_none() -> None:
    coarse = open_vision_encoder("own:timm:test_convnext", image_size=64, stride=16)
    fine = open_vision_encoder("own:timm:test_convnext", image_size=64, stride=8)
    assert (coarse.grid, fine.grid) == ((4, 4), (8, 8))
    plain, strided = (open_vision_encoder("own:siglip_tiny", image_size=32, stride=stride) for stride in (0, 16))
    assert plain.key == strided.key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own:siglip_tin", r"unknown image tower 'siglip_tin' \(did you mean 'siglip_tiny'\?\); choose one of: siglip"),
        ("untrained:", "unknown image tower ''"),
        ("own:timm:test_vitt", r"timm has no model 'test_vitt' \(did you mean 'test_vit'\?\)"),
        ("timm:nothing_like_it", "timm has no model 'nothing_like_it'; timm"),
        ("siglip_tiny", "unknown vision encoder 'siglip_tiny'; choose one of: .*own:TOWER, timm:NAME, untrained:TOWER"),
    ],
)
def test_a_name_that_no_encoder_has_is_refused_before_anything_is_trained(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        vision_pretraining, "pretrained_vision_tower", lambda *a, **o: pytest.fail("a tower was trained")
    )
    monkeypatch.setattr(named_parts, "load_vision_encoder", lambda *a, **o: pytest.fail("an encoder was looked for"))
    with pytest.raises(LabError, match=message):
        open_vision_encoder(name)


def test_names_that_an_encoder_may_have_pass(tmp_path: Path) -> None:
    hub = ("google/siglip-base-patch16-384", "timm:hf-hub:timm/test_vit.r160_in1k", "timm:test_vit.r160_in1k")
    for name in (*hub, "own:siglip_tiny", "untrained:timm:test_vit", "efficientnet_lite0", str(tmp_path)):
        check_vision_encoder(name)
