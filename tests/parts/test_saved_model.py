from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lab.errors import LabError
from lab.parts.audio_projectors import AUDIO_PROJECTORS, MeanPoolMLP, build_audio_projector
from lab.parts.language_models import WordCodec
from lab.parts.media_tokens import AudioTokens, VisualTokens
from lab.parts.omni_model import OmniModel
from lab.parts.saved_model import load_model, save_model
from lab.parts.vision_encoders import load_vision_encoder
from lab.parts.visual_projectors import VISUAL_PROJECTORS, build_visual_projector
from tests.parts.tiny_models import HIDDEN_SIZE, NUM_FEATURES, language_model


def assert_loads_again(model: OmniModel, folder: Path) -> OmniModel:
    save_model(model, folder)
    loaded = load_model(folder)
    assert list(loaded.parts()) == list(model.parts())
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    return loaded


@pytest.mark.parametrize("window", [{}, {"last_window": "dropped"}])
@pytest.mark.parametrize("name", AUDIO_PROJECTORS)
def test_every_audio_projector_is_built_again_with_its_options_and_statistics(
    name: str, window: dict[str, Any], tmp_path: Path
) -> None:
    sizes = {"hidden_size": NUM_FEATURES, "output_size": HIDDEN_SIZE, "downsample_rate": 2, **window}
    budget = {"parameter_budget": 4000} if name == "conv_gmlp_budget" else {}
    projector = build_audio_projector(name, **sizes, **budget)
    tokens = AudioTokens(projector=projector, feature_mean=torch.arange(float(NUM_FEATURES)))
    loaded = assert_loads_again(OmniModel(language_model=language_model(), audio_projector=tokens), tmp_path)
    assert type(loaded.audio_projector.projector) is AUDIO_PROJECTORS[name]
    assert loaded.audio_projector.projector.built_with == {**sizes, **budget}
    assert loaded.audio_projector.projector.output_length(7) == (3 if window else 4)


@pytest.mark.parametrize("name", VISUAL_PROJECTORS)
def test_every_visual_projector_is_built_again_and_a_timm_encoder_with_its_grid(name: str, tmp_path: Path) -> None:
    encoder = load_vision_encoder("timm:test_efficientnet", image_size=64, stride=16, pretrained=False)
    projector = build_visual_projector(name, hidden_size=encoder.hidden_size, output_size=HIDDEN_SIZE)
    tokens = VisualTokens(projector=projector, marks_places=True, newline=True)
    model = OmniModel(language_model=language_model(), visual_projector=tokens, vision_encoder=encoder).eval()
    loaded = assert_loads_again(model, tmp_path)
    assert loaded.vision_encoder.grid == encoder.grid
    assert loaded.vision_encoder.key == encoder.key
    pixels = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    assert torch.equal(loaded.vision_encoder(pixels), encoder(pixels))


def test_a_word_model_reads_the_same_words_again(tmp_path: Path) -> None:
    words = WordCodec(words=("cat", "moves", "what", "red"))
    model = OmniModel(language_model=replace(language_model(), codec=words))
    assert assert_loads_again(model, tmp_path).codec.encode("what moves") == [2, 1]


def test_a_projector_that_stands_in_no_dict_is_named_when_it_is_loaded(tmp_path: Path) -> None:
    class Own(MeanPoolMLP):
        pass

    tokens = AudioTokens(projector=Own(hidden_size=NUM_FEATURES, output_size=HIDDEN_SIZE, downsample_rate=2))
    save_model(OmniModel(language_model=language_model(), audio_projector=tokens), tmp_path)
    with pytest.raises(LabError, match=r"unknown class of a part in the saved model .*: 'Own'.*MeanPoolMLP"):
        load_model(tmp_path)
