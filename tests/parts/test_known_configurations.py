import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, Qwen2Config

from lab.errors import LabError
from lab.parts.known_configurations import KNOWN_CONFIGURATIONS, known_configuration

# A ViT-B/16 has 86M (arXiv 2010.11929, table 1); SigLIP's attention pooling adds 12 d squared.
SIGLIP_BASE = 86e6 + 12 * 768**2
# Of the models' own cards and papers: Whisper (arXiv 2212.04356, table 1), Qwen2.5's cards, the paper's table 8.
PUBLISHED = {
    "openai/whisper-large-v3": 1550e6,
    "openai/whisper-small": 244e6,
    "whisper_base": 74e6,
    "whisper_tiny_en": 39e6,
    "Qwen/Qwen2.5-0.5B": 0.49e9,
    "Qwen/Qwen2.5-1.5B": 1.54e9,
    "Qwen/Qwen2.5-7B": 7.61e9,
    "Qwen/Qwen2.5-0.5B-Instruct": 0.49e9,
    "Qwen/Qwen2.5-1.5B-Instruct": 1.54e9,
    "Qwen/Qwen2.5-7B-Instruct": 7.61e9,
    # Of LLaMA 7B (arXiv 2302.13971, table 2), whose shape Llama 2 keeps.
    "meta-llama/Llama-2-7b-hf": 6.7e9,
    "google/siglip-base-patch16-384": SIGLIP_BASE,
    "google/siglip-so400m-patch14-384": 428e6,
}


@pytest.mark.parametrize("name", KNOWN_CONFIGURATIONS)
def test_parameters_that_follow_are_the_published_ones(name):
    config = known_configuration(name)
    model_class = AutoModelForCausalLM if config.model_type in ("qwen2", "llama") else AutoModel
    with torch.device("meta"):
        model = model_class.from_config(config)
    # Whisper's table rounds to a million and counts tiny's a little otherwise; the others are held closer.
    tolerance = 0.04 if name == "whisper_tiny_en" else 0.02
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(PUBLISHED[name], rel=tolerance)


def test_local_folder_is_read(tmp_path):
    Qwen2Config(hidden_size=24).save_pretrained(tmp_path)
    assert known_configuration(str(tmp_path)).hidden_size == 24


def test_folder_without_a_configuration_is_named(tmp_path):
    with pytest.raises(LabError, match=r"cannot load the configuration in .*; expected one of transformers"):
        known_configuration(str(tmp_path))


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(LabError, match=r"did you mean 'Qwen/Qwen2.5-7B'.*choose one of: Qwen/Qwen2.5-0.5B"):
        known_configuration("Qwen/Qwen2.5-8B")
