import json

import pytest
import torch
from transformers import SiglipVisionModel

from lab.errors import LabError
from standins.models.contrastive import VISION_TOWERS, build_image_tower

NAMES = [*VISION_TOWERS, "timm:test_vit", "timm:test_convnext", "timm:test_resnet"]
PIXELS = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_every_tower_pools_into_its_hidden_size_and_trains_as_a_whole(name):
    tower = build_image_tower(name, image_size=32)
    pooled = tower(PIXELS)
    assert pooled.shape == (2, tower.hidden_size)
    (pooled * torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert [key for key, value in tower.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_repeats_a_tower_and_leaves_the_global_seed_alone(name):
    torch.manual_seed(5)
    first = build_image_tower(name, image_size=32, seed=3).eval()(PIXELS)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(first, build_image_tower(name, image_size=32, seed=3).eval()(PIXELS))
    assert not torch.equal(first, build_image_tower(name, image_size=32, seed=4).eval()(PIXELS))


def test_a_siglip_folder_is_one_that_transformers_reads(tmp_path):
    tower = build_image_tower("siglip_tiny", image_size=32)
    tower.save(tmp_path)
    model = SiglipVisionModel.from_pretrained(tmp_path).eval()
    # Pixels of 0 to 255 become -1 to 1.
    normalised = PIXELS.permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = model(pixel_values=normalised).pooler_output
    assert torch.allclose(tower.eval()(PIXELS), expected, atol=1e-5)
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (processor["image_mean"], processor["image_std"], processor["size"]["height"]) == ([0.5] * 3, [0.5] * 3, 32)


def test_an_unknown_tower_lists_the_choices():
    with pytest.raises(LabError, match=r"unknown image tower 'siglip_tony' \(did you mean 'siglip_tiny'\?\)"):
        build_image_tower("siglip_tony", image_size=32)


def test_an_unknown_timm_model_names_the_closest():
    with pytest.raises(LabError, match=r"timm has no model 'test_vit9' \(did you mean 'test_vit"):
        build_image_tower("timm:test_vit9", image_size=32)
    with pytest.raises(LabError, match=r"timm has no model ''; timm.list_models\(\) lists them"):
        build_image_tower("timm:", image_size=32)
