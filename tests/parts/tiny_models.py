"""Random language models of a few thousand weights, and joined models on them, for the tests of several rooms."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lab.parts.audio_projectors import build_audio_projector
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.media_tokens import AudioTokens, Sound
from lab.parts.omni_model import Example, OmniModel

HIDDEN_SIZE = 16
NUM_FEATURES = 6
# Far above the usual 0.02, so that a leak through attention moves the logits and greedy answers differ.
SPREAD = 0.4


def qwen3(vocab_size: int) -> PreTrainedModel:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocab_size,
            hidden_size=HIDDEN_SIZE,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            initializer_range=SPREAD,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def llama(vocab_size: int) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=HIDDEN_SIZE,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=SPREAD,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def gpt2(vocab_size: int) -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab_size,
            n_embd=HIDDEN_SIZE,
            n_layer=2,
            n_head=2,
            n_positions=256,
            initializer_range=SPREAD,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


ARCHITECTURES = {"qwen3": qwen3, "llama": llama, "gpt2": gpt2}


HEADS = {
    "vocab_size": 6,
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "initializer_range": SPREAD,
}


def windowed(reach: int) -> PreTrainedModel:
    """Every layer looks back so many tokens."""
    return MistralForCausalLM(MistralConfig(**HEADS, sliding_window=reach)).eval()


def chunked(reach: int, **options: Any) -> PreTrainedModel:
    """A layer in chunks of so many tokens, then one that sees all and scales what it asks by its place in the row."""
    layers = {"layer_types": ["chunked_attention", "full_attention"], "moe_layers": [], "intermediate_size_mlp": 24}
    config = Llama4TextConfig(**HEADS, **layers, attention_chunk_size=reach, pad_token_id=0, **options)
    return Llama4ForCausalLM(config).eval()


def language_model(
    architecture: str = "qwen3", alphabet: str = "abcd", frames_per_token: int | None = 3, seed: int = 0
) -> LanguageModel:
    torch.manual_seed(seed)
    codec = CharacterCodec(alphabet=alphabet)
    model = ARCHITECTURES[architecture](codec.vocab_size).eval()
    return LanguageModel(f"tiny {architecture}", model, codec, "0", frames_per_token)


def hearing_model(
    architecture: str = "qwen3",
    positions: str = "sequential",
    *,
    alphabet: str = "abcd",
    rate: int = 2,
    seed: int = 0,
    train_language_model: bool = False,
) -> OmniModel:
    part = language_model(architecture, alphabet, seed=seed)
    projector = build_audio_projector(
        "mean_pool_mlp", hidden_size=NUM_FEATURES, output_size=HIDDEN_SIZE, downsample_rate=rate
    )
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter, std=SPREAD)
    tokens = AudioTokens(
        projector=projector,
        feature_mean=torch.randn(NUM_FEATURES),
        feature_std=torch.rand(NUM_FEATURES) + 0.5,
    )
    model = OmniModel(language_model=part, audio_projector=tokens, positions=positions)
    model.language_model.requires_grad_(train_language_model)
    return model.eval()


def sounds(lengths: Sequence[int], seed: int = 1) -> list[Sound]:
    """Random features of sounds of so many frames."""
    generator = torch.Generator().manual_seed(seed)
    return [Sound(torch.randn(length, NUM_FEATURES, generator=generator)) for length in lengths]


def heard(
    lengths: Sequence[int],
    answers: Sequence[Sequence[int]] | None = None,
    *,
    prompt: Sequence[int] = (1, 0),
    seed: int = 1,
) -> list[Example]:
    """Sounds of so many frames after a prompt, with answers."""
    answers = [()] * len(lengths) if answers is None else answers
    before = [list(prompt)] if prompt else []
    return [
        Example(content=[*before, sound], answer=answer)
        for sound, answer in zip(sounds(lengths, seed), answers, strict=True)
    ]
