"""Predicted bytes against those of small models that are really trained."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.errors import LabError
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.audio_language_model import AudioLanguageModel
from lab.parts.audio_projectors import AUDIO_PROJECTORS, build_audio_projector
from lab.parts.known_configurations import known_configuration
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.training.memory import PRECISIONS, Memory, Sample, part_memory, speech_memory, vision_encoder_saved

VOCABULARY = 300
ALPHABET = "".join(chr(0x4E00 + i) for i in range(VOCABULARY - 2))
SMALL = {"width": 32, "layers": 2, "inner": 96, "heads": 4, "encoder": 24}
LARGER = {"width": 96, "layers": 3, "inner": 200, "heads": 6, "encoder": 64}
SAMPLE = Sample(batch_size=3, frames=64, encoder_frames=64, prompt_tokens=2, answer_tokens=10)


def language_config(kind: str, size: dict[str, int]) -> Qwen2Config | Qwen3Config | LlamaConfig:
    config = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}[kind]
    more = {"head_dim": 12} if kind == "qwen3" else {}
    return config(
        vocab_size=VOCABULARY,
        hidden_size=size["width"],
        intermediate_size=size["inner"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=2,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        **more,
    )


def whisper(size: dict[str, int]) -> WhisperEncoder:
    return WhisperEncoder(
        WhisperConfig(
            d_model=size["encoder"],
            encoder_layers=size["layers"],
            encoder_attention_heads=2,
            encoder_ffn_dim=4 * size["encoder"],
            max_source_positions=SAMPLE.frames,
        )
    )


def projector_options(size: dict[str, int]) -> dict[str, int]:
    return {"hidden_size": size["encoder"], "output_size": size["width"], "downsample_rate": 4}


def predicted(
    size: dict[str, int], trained: set[str], precision: str = "float32", kind: str = "qwen2", name: str = "conv_gmlp"
) -> Memory:
    with torch.device("meta"):
        encoder = whisper(size)
        language_model = AutoModelForCausalLM.from_config(language_config(kind, size))
    encoder.embed_positions.requires_grad_(False)
    return speech_memory(
        encoder=encoder,
        build_projector=lambda: build_audio_projector(name, **projector_options(size)),
        language_model=language_model,
        sample=SAMPLE,
        trained=trained,
        precision=PRECISIONS[precision],
    )


class Trained:
    """A model of that size, trained for a step, and the bytes that it took."""

    def __init__(
        self,
        size: dict[str, int],
        trained: set[str],
        precision: str = "float32",
        kind: str = "qwen2",
        name: str = "conv_gmlp",
        checkpointing: bool = False,
    ) -> None:
        torch.manual_seed(0)
        dtype = PRECISIONS[precision].dtype
        encoder = AudioEncoder(
            whisper=whisper(size), feature_extractor=WhisperFeatureExtractor(), window="padded"
        ).freeze()
        language_model = AutoModelForCausalLM.from_config(language_config(kind, size))
        with_encoder = "audio_encoder" in trained
        self.model = AudioLanguageModel(
            projector=build_audio_projector(name, **projector_options(size)),
            language_model=LanguageModel("tiny", language_model, CharacterCodec(alphabet=ALPHABET), "0"),
            prompt=ALPHABET[: SAMPLE.prompt_tokens],
            train_language_model="language_model" in trained,
            encoder=encoder if with_encoder else None,
        )
        buffers = {name: buffer.dtype for name, buffer in language_model.named_buffers()}
        self.model.to(dtype)
        for buffer_name in buffers:  # the rotary frequencies stay in float32, as when such a model is loaded
            owner, _, leaf = buffer_name.rpartition(".")
            module = language_model.get_submodule(owner)
            setattr(module, leaf, getattr(module, leaf).to(buffers[buffer_name]))
        self.model.projector.requires_grad_("audio_projector" in trained)
        if checkpointing:
            self._checkpoint_layers(encoder.whisper, language_model)
        mels = torch.randn(SAMPLE.batch_size, 80, 2 * SAMPLE.frames)
        lengths = torch.full((SAMPLE.batch_size,), SAMPLE.frames)
        answers = [[1] * SAMPLE.answer_tokens, [2] * SAMPLE.answer_tokens, [3] * (SAMPLE.answer_tokens - 4)]
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, fused=True)
        self.model.train()
        if with_encoder:
            features, encode = mels, True
        else:
            with torch.no_grad():
                features, encode = encoder.to(dtype)(mels, lengths)[0], False
        own = {t.untyped_storage().data_ptr() for t in [*self.model.parameters(), *self.model.buffers()]}
        kept: dict[int, torch.Tensor] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            place = tensor.untyped_storage().data_ptr()
            if place not in own:
                kept.setdefault(place, tensor)
            return tensor

        cast = torch.autocast("cpu", torch.bfloat16, enabled=PRECISIONS[precision].autocast)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            with cast:
                if encode:
                    features, _ = self.model.encoder(features, lengths)
                answer = self.model(features, lengths, answers)
            loss = answer.loss.sum()
        self.activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        kept.clear()
        loss.backward()
        optimizer.step()
        tensors = [*self.model.parameters(), *self.model.buffers()]
        self.weights = sum(t.numel() * t.element_size() for t in tensors)
        self.gradients = sum(p.grad.numel() * p.grad.element_size() for p in learning)
        states = [state for entry in optimizer.state.values() for state in entry.values()]
        self.optimizer = sum(state.numel() * state.element_size() for state in states)
        self.parameters = len(learning)

    @staticmethod
    def _checkpoint_layers(encoder: WhisperEncoder, language_model: nn.Module) -> None:
        for model in (encoder, language_model):
            model.gradient_checkpointing_enable({"use_reentrant": False})


@pytest.mark.parametrize("size", [SMALL, LARGER], ids=["small", "larger"])
@pytest.mark.parametrize(
    "trained",
    [
        {"audio_projector"},
        {"audio_encoder", "audio_projector"},
        {"audio_encoder", "audio_projector", "language_model"},
        {"language_model"},
    ],
    ids=lambda trained: "+".join(sorted(trained)),
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prediction_is_what_a_small_model_takes_in_training(size, trained, precision):
    memory, real = predicted(size, trained, precision), Trained(size, trained, precision)
    assert sum(part.weights for part in memory.parts) == real.weights
    assert sum(part.gradients for part in memory.parts) == real.gradients
    assert sum(part.optimizer for part in memory.parts) == real.optimizer
    activations = sum(part.saved.everything for part in memory.parts)
    print(activations / real.activations)
    assert activations == pytest.approx(real.activations, rel=0.15)
