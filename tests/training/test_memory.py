"""Predicted bytes against those of small models that are really trained."""

import pytest
import torch
from torch import nn
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
from lab.parts.audio_projectors import AUDIO_PROJECTORS, build_audio_projector
from lab.parts.audio_tokens import AudioTokens, Sound
from lab.parts.known_configurations import known_configuration
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.training.memory import Memory, part_memory, speech_memory
from lab.training.saved_bytes import (
    PRECISIONS,
    Saved,
    SpeechSample,
    decoder_layer_bytes,
    encoder_layer_bytes,
    vision_encoder_saved,
)
from tests.parts.tiny_models import gpt2

VOCABULARY = 300
ALPHABET = "".join(chr(0x4E00 + i) for i in range(VOCABULARY - 2))
SMALL = {"width": 32, "layers": 2, "inner": 96, "heads": 4, "encoder": 24}
LARGER = {"width": 96, "layers": 3, "inner": 200, "heads": 6, "encoder": 64}
SAMPLE = SpeechSample(batch_size=3, frames=64, encoder_frames=64, prompt_tokens=2, answer_tokens=10)


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
        self.model = OmniModel(
            audio_projector=AudioTokens(projector=build_audio_projector(name, **projector_options(size))),
            language_model=LanguageModel("tiny", language_model, CharacterCodec(alphabet=ALPHABET), "0"),
            audio_encoder=encoder if with_encoder else None,
        )
        language_model.requires_grad_("language_model" in trained)
        if with_encoder:
            encoder.requires_grad_(True)
            encoder.whisper.embed_positions.requires_grad_(False)
        buffers = {name: buffer.dtype for name, buffer in language_model.named_buffers()}
        self.model.to(dtype)
        for buffer_name in buffers:  # the rotary frequencies stay in float32, as when such a model is loaded
            owner, _, leaf = buffer_name.rpartition(".")
            module = language_model.get_submodule(owner)
            setattr(module, leaf, getattr(module, leaf).to(buffers[buffer_name]))
        self.model.audio_projector.requires_grad_("audio_projector" in trained)
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
                    features, _ = self.model.audio_encoder(features, lengths)
                prompt = list(range(SAMPLE.prompt_tokens))
                answer = self.model(
                    [Example(content=[prompt, Sound(f)], answer=a) for f, a in zip(features, answers, strict=True)]
                )
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


def assert_as_trained(memory: Memory, real: Trained) -> None:
    assert sum(part.weights for part in memory.parts) == real.weights
    assert sum(part.gradients for part in memory.parts) == real.gradients
    assert sum(part.optimizer for part in memory.parts) == real.optimizer
    activations = sum(part.saved.everything for part in memory.parts)
    # The issue asks for 15%; the formulas leave out index tensors alone.
    assert activations == pytest.approx(real.activations, rel=0.03)


PROJECTOR, SPEECH = {"audio_projector"}, {"audio_encoder", "audio_projector"}
EVERYTHING = {*SPEECH, "language_model"}


@pytest.mark.parametrize("size", [SMALL, LARGER], ids=["small", "larger"])
@pytest.mark.parametrize("trained", [PROJECTOR, SPEECH, EVERYTHING], ids=["projector", "with encoder", "everything"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prediction_is_what_a_small_model_takes_in_training(size, trained, precision):
    assert_as_trained(predicted(size, trained, precision), Trained(size, trained, precision))


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("trained", [PROJECTOR, EVERYTHING], ids=["projector", "everything"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prediction_holds_for_other_language_models(kind, trained, precision):
    assert_as_trained(predicted(LARGER, trained, precision, kind), Trained(LARGER, trained, precision, kind))


@pytest.mark.parametrize("name", sorted(set(AUDIO_PROJECTORS) - {"conv_gmlp_budget"}))
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prediction_holds_for_every_projector(name, precision):
    assert_as_trained(predicted(SMALL, SPEECH, precision, name=name), Trained(SMALL, SPEECH, precision, name=name))


@pytest.mark.parametrize("trained", [PROJECTOR, EVERYTHING], ids=["projector", "everything"])
def test_weights_in_bfloat16_take_a_master_copy_that_adamw_alone_does_not_have(trained):
    memory = predicted(LARGER, trained, "bfloat16_weights")
    real = Trained(LARGER, trained, "bfloat16_weights")
    learning = sum(part.trained_parameters for part in memory.parts)
    statistics = 2 * 2 * LARGER["encoder"]  # kept in float32 by the prediction, in bfloat16 by the model of this test
    assert sum(part.weights for part in memory.parts) == real.weights + statistics
    assert sum(part.gradients for part in memory.parts) == real.gradients == 2 * learning
    # torch keeps the moments as the weights are, 2 bytes each; 4 each and a float32 copy of the weight are predicted.
    assert sum(part.optimizer for part in memory.parts) == real.optimizer + (4 + 4) * learning
    activations = sum(part.saved.everything for part in memory.parts)
    assert activations == pytest.approx(real.activations, rel=0.03)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prediction_holds_with_gradient_checkpointing(precision):
    memory = predicted(LARGER, EVERYTHING, precision)
    real = Trained(LARGER, EVERYTHING, precision, checkpointing=True)
    checkpointed = sum(part.saved.checkpointed for part in memory.parts)
    assert checkpointed == pytest.approx(real.activations, rel=0.05)
    assert memory.total_checkpointed < memory.total


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prediction_holds_for_a_vision_encoder(precision):
    config = SiglipVisionConfig(
        hidden_size=48,
        intermediate_size=100,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
        vision_use_head=False,  # the prediction leaves the pooling head out
    )
    model = SiglipVisionModel(config).train()
    kept: dict[int, torch.Tensor] = {}
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    cast = torch.autocast("cpu", torch.bfloat16, enabled=PRECISIONS[precision].autocast)
    with cast, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        patches = model(torch.randn(3, 3, 56, 56)).last_hidden_state
    assert patches.shape[1] == 16
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    saved = vision_encoder_saved(model, 3, config, PRECISIONS[precision])
    assert saved.everything == pytest.approx(real, rel=0.03)


def test_encoder_outside_the_loop_takes_nothing():
    part = predicted(SMALL, PROJECTOR).parts[0]
    assert (part.name, part.weights, part.gradients, part.optimizer) == ("audio_encoder", 0, 0, 0)
    assert part.saved.everything == 0
    assert part.parameters == sum(p.numel() for p in whisper(SMALL).parameters())


def test_fixed_positions_of_whisper_are_not_trained():
    part = predicted(SMALL, SPEECH).parts[0]
    assert part.parameters - part.trained_parameters == SAMPLE.frames * SMALL["encoder"]


def test_frozen_language_model_keeps_activations_because_the_gradient_flows_through_it():
    part = predicted(SMALL, PROJECTOR).parts[2]
    assert part.trained_parameters == part.gradients == part.optimizer == 0
    positions = SAMPLE.batch_size * (2 + 16 + 1 + 10)
    assert part.saved.everything > positions * SMALL["layers"] * 4 * (2 * 32 + 3 * 96)


def test_layer_of_whisper_large_by_hand():
    # Autocast, d = 1280, f = 5120, 20 heads: norms 2 * 4 d + 16; four casts and five results of attention 2 d each;
    # softmax 4 * 20; GELU 2 * 2 f.
    by_hand = 2 * 4 * 1280 + 16 + 4 * 2 * 1280 + 5 * 2 * 1280 + 4 * 20 + 2 * 2 * 5120
    config = known_configuration("openai/whisper-large-v3")
    assert encoder_layer_bytes(1500, config, PRECISIONS["bfloat16"]) == 1500 * by_hand


def test_layer_of_a_frozen_7b_by_hand():
    # Autocast, d = 3584, f = 18944, 28 heads of 128: norms 8 d + 8; four of attention's 2 d each; softmax 4 * 28;
    # SwiGLU's three factors 2 f each; the mask 2 * 512 squared.
    by_hand = 8 * 3584 + 8 + 4 * 2 * 3584 + 4 * 28 + 3 * 2 * 18944
    config = known_configuration("Qwen/Qwen2.5-7B")
    found = decoder_layer_bytes(2, 512, config, PRECISIONS["bfloat16"], trained=False)
    assert found == 2 * 512 * by_hand + 2 * 2 * 512**2


def test_unmasked_batch_of_one_does_not_repeat_keys_and_values():
    config = known_configuration("Qwen/Qwen2.5-7B")
    one = decoder_layer_bytes(1, 512, config, PRECISIONS["float32"], trained=False)
    two = decoder_layer_bytes(2, 512, config, PRECISIONS["float32"], trained=False)
    assert two - 2 * one == 4 * 2 * 512**2 + 2 * 512 * 4 * 2 * (28 - 4) * 128


def test_a_trained_parameter_takes_sixteen_bytes_in_float32_and_with_a_master_copy():
    layer = nn.Linear(10, 10, bias=False)
    for name in ("float32", "bfloat16", "bfloat16_weights"):
        part = part_memory("x", layer, PRECISIONS[name], trained=True, saved=Saved())
        assert part.weights + part.gradients + part.optimizer == 16 * 100 + 4
    assert part_memory("x", layer, PRECISIONS["bfloat16_weights"], trained=False, saved=Saved()).weights == 200


def changed(**changes: object) -> Memory:
    with torch.device("meta"):
        arguments = {
            "encoder": whisper(SMALL),
            "build_projector": lambda: build_audio_projector("conv_gmlp", **projector_options(SMALL)),
            "language_model": AutoModelForCausalLM.from_config(language_config("qwen2", SMALL)),
            "sample": SAMPLE,
            "trained": PROJECTOR,
            "precision": PRECISIONS["float32"],
        }
    return speech_memory(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trained": {"audio_decoder"}}, "unknown part 'audio_decoder'.*; choose one of: audio_encoder"),
        ({"trained": set()}, "nothing is trained: choose at least one of: audio_encoder"),
        ({"language_model": gpt2(10)}, "unknown form of language model for the formulas: 'gpt2'"),
        ({"max_tokens": 28}, "an utterance takes 29 tokens, more than max_tokens 28"),
    ],
)
def test_what_cannot_be_counted_is_refused(changes, message):
    with pytest.raises(LabError, match=message):
        changed(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"encoder_frames": 63}, "encoder_frames is 63; expected at least 64"),
        ({"answer_tokens": -1}, "answer_tokens is -1; expected at least 0"),
    ],
)
def test_batch_that_cannot_be_is_refused(changes, message):
    with pytest.raises(LabError, match=message):
        SpeechSample(**{**vars(SAMPLE), **changes})
