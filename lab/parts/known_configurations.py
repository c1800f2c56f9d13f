"""Published sizes of the models that studies name on the hub, so that their cost is known before anything is fetched.

Section 3.1 of the paper names SigLIP-so400m and Whisper-large-v3; its 7B language model is unnamed, Qwen2.5-7B is ours.
A configuration here serves for counting alone: a run loads the hub's own. A test holds the numbers of parameters that
follow from each against the published ones.
"""

from collections.abc import Callable
from pathlib import Path

from transformers import AutoConfig, LlamaConfig, PreTrainedConfig, Qwen2Config, SiglipVisionConfig, WhisperConfig

from lab.errors import choose
from lab.parts.part import loading


def _whisper(width: int, layers: int, heads: int, num_mel_bins: int = 80, vocab_size: int = 51865) -> WhisperConfig:
    """Whisper's paper (arXiv 2212.04356), table 1: width, layers of encoder and of decoder, heads; inner width 4 d."""
    return WhisperConfig(
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        num_mel_bins=num_mel_bins,
        vocab_size=vocab_size,
    )


def _qwen2_5(
    width: int, inner: int, layers: int, heads: int, kv_heads: int, vocab_size: int, tied: bool
) -> Qwen2Config:
    """Qwen2.5's report (arXiv 2412.15115), table 1: layers, heads, tied embeddings; widths from the model's card."""
    return Qwen2Config(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab_size,
        tie_word_embeddings=tied,
    )


_QWEN2_5_0_5B = (896, 4864, 24, 14, 2, 151936, True)
_QWEN2_5_1_5B = (1536, 8960, 28, 12, 2, 151936, True)
_QWEN2_5_7B = (3584, 18944, 28, 28, 4, 152064, False)

KNOWN_CONFIGURATIONS: dict[str, Callable[[], PreTrainedConfig]] = {
    # The paper's section 3.1 as well: 128 mel bins, 1280 channels; v3 has one token more than v2, for Cantonese.
    "openai/whisper-large-v3": lambda: _whisper(1280, 32, 20, num_mel_bins=128, vocab_size=51866),
    "openai/whisper-small": lambda: _whisper(768, 12, 12),
    "whisper_base": lambda: _whisper(512, 6, 8),
    "whisper_tiny_en": lambda: _whisper(384, 4, 6, vocab_size=51864),
    # The Instruct models are the same networks, trained further.
    "Qwen/Qwen2.5-0.5B": lambda: _qwen2_5(*_QWEN2_5_0_5B),
    "Qwen/Qwen2.5-0.5B-Instruct": lambda: _qwen2_5(*_QWEN2_5_0_5B),
    "Qwen/Qwen2.5-1.5B": lambda: _qwen2_5(*_QWEN2_5_1_5B),
    "Qwen/Qwen2.5-1.5B-Instruct": lambda: _qwen2_5(*_QWEN2_5_1_5B),
    "Qwen/Qwen2.5-7B": lambda: _qwen2_5(*_QWEN2_5_7B),
    "Qwen/Qwen2.5-7B-Instruct": lambda: _qwen2_5(*_QWEN2_5_7B),
    # Transformers' own defaults are Llama's shape, as it documents, and SigLIP-base's at 224 px; 384 by its name.
    "meta-llama/Llama-2-7b-hf": LlamaConfig,
    "google/siglip-base-patch16-384": lambda: SiglipVisionConfig(image_size=384),
    # So400m's shape (arXiv 2305.13035).
    "google/siglip-so400m-patch14-384": lambda: SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    ),
}


def known_configuration(name_or_path: str) -> PreTrainedConfig:
    """The configuration of a known hub name, or of a local folder; nothing is downloaded.

    Raises:
        LabError: neither; the message lists the known names. Or the folder holds no configuration.
    """
    if Path(name_or_path).is_dir():
        with loading(f"the configuration in {name_or_path}", "one of transformers"):
            return AutoConfig.from_pretrained(name_or_path, local_files_only=True)
    return choose(KNOWN_CONFIGURATIONS, name_or_path, "configuration (a known hub name, or a local folder):")()
