from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from lab.errors import LabError
from lab.parts import vision_encoders
from lab.parts.known_configurations import known_configuration
from lab.parts.vision_encoders import SiglipBackbone, VisionEncoder, load_vision_encoder

# timm's own models for tests, of the kinds that lay out their features differently.
TIMM_MODELS = ("test_vit", "test_vit3", "test_vit_relpos", "test_efficientnet", "test_resnet", "test_convnext")
SIGLIP = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 30,
    "patch_size": 7,
}


def siglip_model(seed: int = 0) -> SiglipVisionModel:
    torch.manual_seed(seed)
    return SiglipVisionModel(SiglipVisionConfig(**SIGLIP)).eval()


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siglip")
    siglip_model().save_pretrained(folder)
    SiglipImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.5, 0.4, 0.3]).save_pretrained(folder)
    return folder


def timm_encoder(name: str, seed: int = 0, **options: Any) -> VisionEncoder:
    torch.manual_seed(seed)
    return load_vision_encoder(f"timm:{name}", pretrained=False, **{"image_size": 64, **options})


@pytest.fixture(params=["siglip", *TIMM_MODELS])
def encoder(request: pytest.FixtureRequest, siglip_folder: Path) -> VisionEncoder:
    if request.param == "siglip":
        return load_vision_encoder(str(siglip_folder))
    return timm_encoder(request.param)


def pictures(size: int, batch: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=generator)


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# The contract, over SigLIP and the kinds of timm models.


def test_features_are_a_grid_of_the_declared_size(encoder: VisionEncoder) -> None:
    features = encoder(pictures(encoder.image_size))
    assert features.shape == (3, *encoder.grid, encoder.hidden_size)
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    assert not encoder.training


def test_a_pictures_features_do_not_depend_on_its_batch(encoder: VisionEncoder) -> None:
    batch = pictures(encoder.image_size, batch=4)
    for mode in (False, True):
        encoder.train(mode)
        together = encoder(batch)
        for index in range(4):
            close(encoder(batch[index : index + 1])[0], together[index])


def test_gradients_reach_every_parameter(encoder: VisionEncoder) -> None:
    encoder.requires_grad_(True).train()
    features = encoder(pictures(encoder.image_size))
    (features * torch.randn(features.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_freezing_stops_gradients_and_training(encoder: VisionEncoder) -> None:
    encoder.requires_grad_(True).train().freeze()
    assert not any(module.training for module in encoder.modules())
    assert not encoder(pictures(encoder.image_size)).requires_grad


def test_encode_gives_what_forward_gives_in_batches_of_any_size(encoder: VisionEncoder) -> None:
    batch = pictures(encoder.image_size, batch=5)
    with torch.no_grad():
        expected = encoder(batch).numpy()
    for batch_size in (1, 2, 5, 32):
        features = encoder.encode(batch.numpy(), batch_size=batch_size)
        assert features.dtype == np.float32
        close(features, expected)
    assert encoder.encode(batch.numpy()[:0]).shape == (0, *encoder.grid, encoder.hidden_size)


def test_wrong_pixels_are_refused_with_what_was_expected(encoder: VisionEncoder) -> None:
    size = encoder.image_size
    for bad in (
        pictures(size).float(),
        pictures(size + 1),
        pictures(size)[..., :1],
        pictures(size).permute(0, 3, 1, 2),
    ):
        with pytest.raises(LabError, match=rf"pixels have shape .* expected batch x {size} x {size} x 3, torch.uint8"):
            encoder(bad)


def test_bfloat16_weights_encode(encoder: VisionEncoder) -> None:
    assert encoder.bfloat16()(pictures(encoder.image_size)).dtype == torch.bfloat16


def test_batch_norm_keeps_its_statistics_in_training() -> None:
    encoder = timm_encoder("test_efficientnet").train()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    assert any("running_mean" in name for name in before)
    encoder(pictures(64))
    assert all(torch.equal(before[name], buffer) for name, buffer in encoder.named_buffers())


# Keys.


def test_the_key_changes_with_whatever_features_depend_on(siglip_folder: Path, tmp_path: Path) -> None:
    other = siglip_model()
    other.post_layernorm.bias.data[0] += 1
    other.save_pretrained(tmp_path)
    encoders = [
        load_vision_encoder(str(siglip_folder)),
        load_vision_encoder(str(siglip_folder), image_size=35),
        load_vision_encoder(str(tmp_path)),
        timm_encoder("test_vit"),
        timm_encoder("test_vit", seed=1),
        timm_encoder("test_efficientnet"),
        timm_encoder("test_efficientnet", stride=16),
        timm_encoder("test_efficientnet", image_size=96),
    ]
    keys = [encoder.key for encoder in encoders]
    assert len(set(keys)) == len(keys)
    for encoder in encoders:
        assert encoder.weights_sha256[:16] in encoder.key
        assert "/" not in encoder.key


def test_the_key_changes_with_the_normalisation() -> None:
    backbone = timm_encoder("test_vit").backbone
    keys = {
        VisionEncoder(backbone=backbone, name="a", mean=(mean, 0.5, 0.5), std=(0.5, 0.5, std)).key
        for mean, std in ((0.5, 0.5), (0.4, 0.5), (0.5, 0.4))
    }
    assert len(keys) == 3


def test_the_same_weights_in_another_folder_have_the_same_key(siglip_folder: Path, tmp_path: Path) -> None:
    siglip_model().save_pretrained(tmp_path)
    SiglipImageProcessor.from_pretrained(siglip_folder).save_pretrained(tmp_path)
    assert load_vision_encoder(str(tmp_path)).key == load_vision_encoder(str(siglip_folder)).key


def test_one_seed_repeats_exactly() -> None:
    first, second = (timm_encoder("test_vit") for _ in range(2))
    assert first.key == second.key
    assert torch.equal(first(pictures(64)), second(pictures(64)))


# SigLIP.


def test_siglips_features_are_its_last_hidden_states_row_by_row(siglip_folder: Path) -> None:
    encoder, batch = load_vision_encoder(str(siglip_folder)), pictures(30)
    processor = SiglipImageProcessor.from_pretrained(siglip_folder, do_resize=False)
    pixels = processor(list(batch.permute(0, 3, 1, 2)), return_tensors="pt").pixel_values
    expected = siglip_model()(pixels).last_hidden_state
    assert encoder.grid == (4, 4)  # 30 px in patches of 7, the last 2 px left out
    for row in range(4):
        for column in range(4):
            close(encoder(batch)[:, row, column], expected[:, 4 * row + column])


def test_siglip_at_another_size_resamples_its_position_table(siglip_folder: Path) -> None:
    encoder, batch = load_vision_encoder(str(siglip_folder), image_size=43), pictures(43)
    assert (encoder.image_size, encoder.grid) == (43, (6, 6))
    pixels = (batch.permute(0, 3, 1, 2) / 255 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor(
        [0.5, 0.4, 0.3]
    )[:, None, None]
    expected = siglip_model()(pixels, interpolate_pos_encoding=True).last_hidden_state
    close(encoder(batch).flatten(1, 2), expected)
    with pytest.raises(LabError, match="image_size is 6; expected at least one patch of 7"):
        load_vision_encoder(str(siglip_folder), image_size=6)


def test_the_vision_half_of_a_whole_siglip_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(3)
    text = SiglipTextConfig(
        vocab_size=8, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    whole = SiglipModel(SiglipConfig(text_config=text.to_dict(), vision_config=SIGLIP)).eval()
    whole.save_pretrained(tmp_path)
    batch = pictures(30)
    expected = whole.vision_model(batch.permute(0, 3, 1, 2) / 127.5 - 1).last_hidden_state
    close(load_vision_encoder(str(tmp_path))(batch).flatten(1, 2), expected)


def test_the_papers_encoder_has_27_x_27_patches_of_1152_channels() -> None:
    config = known_configuration("google/siglip-so400m-patch14-384")
    with torch.device("meta"):
        backbone = SiglipBackbone(siglip=SiglipVisionModel(config))
    assert (backbone.image_size, backbone.grid, backbone.hidden_size) == (384, (27, 27), 1152)
    assert all(not name.startswith("siglip.head") for name, _ in backbone.named_parameters())


def test_what_is_no_siglip_is_refused(tmp_path: Path, siglip_folder: Path) -> None:
    BertConfig(hidden_size=8).save_pretrained(tmp_path)
    with pytest.raises(LabError, match="is a bert model; expected SigLIP, or timm:NAME"):
        load_vision_encoder(str(tmp_path))
    expected = "expected timm:NAME, a local folder, or a SigLIP on the Hugging Face hub"
    with pytest.raises(LabError, match=rf"cannot load vision encoder '.*nowhere'.* {expected}"):
        load_vision_encoder(str(tmp_path / "nowhere"))
    for option in ({"stride": 16}, {"pretrained": False}, {"weights": tmp_path}):
        with pytest.raises(LabError, match="has no stride, pretrained or weights; timm models have"):
            load_vision_encoder(str(siglip_folder), **option)


def test_a_siglip_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    model = siglip_model()
    state = {key: value for key, value in model.state_dict().items() if "layers.1" not in key}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(LabError, match=r"lacks 16 of SigLIP's weights, first .*layers\.1"):
        load_vision_encoder(str(tmp_path))


# timm.


def test_a_vits_features_are_its_patches_without_the_class_token() -> None:
    encoder, batch = timm_encoder("test_vit"), pictures(64)
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    expected = model.forward_features(batch.permute(0, 3, 1, 2) / 127.5 - 1)
    assert expected.shape[1] == 1 + 16  # a class token and 4 x 4 patches
    assert encoder.grid == (4, 4)
    close(encoder(batch).flatten(1, 2), expected[:, 1:])


@pytest.mark.parametrize(("stride", "index"), [(2, 0), (4, 1), (8, 2), (16, 3), (32, 4)])
def test_a_stride_chooses_a_cnns_stage(stride: int, index: int) -> None:
    encoder = timm_encoder("test_efficientnet", stride=stride)
    assert encoder.grid == (64 // stride,) * 2
    pyramid = timm.create_model("test_efficientnet", features_only=True).eval()
    state = timm_state("test_efficientnet")
    pyramid.load_state_dict({key: state[key] for key in pyramid.state_dict()})
    published = timm.get_pretrained_cfg("test_efficientnet")
    mean, std = (torch.tensor(values)[:, None, None] for values in (published.mean, published.std))
    batch = pictures(64)
    expected = pyramid((batch.permute(0, 3, 1, 2) / 255 - mean) / std)[index].permute(0, 2, 3, 1)
    close(encoder(batch), expected)
    assert encoder.backbone.feature_index == index


def timm_state(name: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0).state_dict()


def test_pictures_are_normalised_as_the_model_wants() -> None:
    encoder, published = timm_encoder("test_resnet"), timm.get_pretrained_cfg("test_resnet")
    assert encoder.normalisation == {"mean": list(published.mean), "std": list(published.std)}


def test_without_a_size_a_model_takes_its_own() -> None:
    assert timm_encoder("test_vit", image_size=0).image_size == 160


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_of_a_file_are_used_and_its_classifier_ignored(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(5)
    model = timm.create_model("test_vit", img_size=64)
    file = tmp_path / f"weights.{suffix}"
    save_file(model.state_dict(), file) if suffix == "safetensors" else torch.save(model.state_dict(), file)
    loaded = load_vision_encoder("timm:test_vit", image_size=64, weights=file)
    assert torch.equal(loaded.backbone.model.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)
    assert loaded.key != timm_encoder("test_vit").key


def test_weights_that_do_not_fit_or_cannot_be_read_are_refused(tmp_path: Path) -> None:
    state = timm_state("test_vit")
    for changed, complaint in (
        ({key: value for key, value in state.items() if key != "norm.bias"}, "Missing"),
        ({**state, "extra": torch.zeros(1)}, "Unexpected"),
    ):
        torch.save(changed, tmp_path / "bad.pth")
        with pytest.raises(LabError, match=rf"the weights .*bad\.pth of timm model 'test_vit': .*{complaint} key"):
            load_vision_encoder("timm:test_vit", weights=tmp_path / "bad.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    for name in ("broken.pth", "nowhere.pth"):
        with pytest.raises(LabError, match=rf"cannot load the weights .*{name} of timm model 'test_vit'"):
            load_vision_encoder("timm:test_vit", weights=tmp_path / name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("test_vitt", {}, r"timm has no model 'test_vitt' \(did you mean 'test_vit'\?\); timm.list_models"),
        ("qqqqqqqq", {}, r"timm has no model 'qqqqqqqq'; timm.list_models\(\) lists them all"),
        ("test_vit", {"stride": 8}, "'test_vit' has no features of stride 8; choose one of: 16"),
        ("test_resnet", {"stride": 3}, "has no features of stride 3; choose one of: 2, 4, 8, 16, 32"),
        ("test_vit", {"image_size": 63}, "'test_vit' for pictures of 63 px: Input height"),
        ("test_vit", {"image_size": -1}, "image_size is -1 and stride 0; expected 0"),
        ("test_vit", {"stride": -1}, "image_size is 64 and stride -1; expected 0"),
    ],
)
def test_an_option_out_of_range_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        timm_encoder(name, **options)


def test_weights_that_the_hub_does_not_give_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> nn.Module:
        raise OSError("no network")

    monkeypatch.setattr(vision_encoders.timm, "create_model", unreachable)
    with pytest.raises(
        LabError, match=r"cannot load timm model 'test_vit': no network; .* pretrained=False for random"
    ):
        load_vision_encoder("timm:test_vit")


def test_a_model_without_intermediate_features_is_refused() -> None:
    model = nn.Identity()
    model.pretrained_cfg = {"architecture": "odd"}
    with pytest.raises(LabError, match="timm model 'odd' gives no intermediate features"):
        vision_encoders.TimmBackbone(model=model, image_size=8)


# The packaged EfficientNet-Lite0, against a network written from its names.
