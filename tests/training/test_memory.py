"""What a trace counts, against small models that the real loop trains and the real scorer runs, on real tensors."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
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
from lab.parts.any_resolution import token_order
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.audio_projectors import AUDIO_PROJECTORS, build_audio_projector
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.media_tokens import AudioTokens, Seen, Sound, VisualTokens
from lab.parts.omni_model import Example, OmniModel
from lab.parts.vision_encoders import SiglipBackbone, VisionEncoder, load_timm
from lab.parts.visual_projectors import VISUAL_PROJECTORS, build_visual_projector
from lab.study.largest_batch import MelShapes
from lab.training.loop import TrainingOptions, train
from lab.training.memory import PRECISIONS, Memory, trace
from lab.training.scoring import ScoringOptions, answer_losses, text_model
from lab.training.stages import Stage, apply_stage

VOCABULARY, WIDTH, INNER, LAYERS, HEADS = 300, 96, 200, 3, 6
FRAMES, HEARD = 64, 64  # encoder frames of a sound, and the audio encoder's width
PIXELS = 56
ALPHABET = "".join(chr(0x4E00 + i) for i in range(VOCABULARY - 2))
SOUND = ("audio_encoder", "audio_projector")
Batch = Callable[[OmniModel], list[Example]]


def language_model(kind: str = "qwen2", layers: int = LAYERS) -> LanguageModel:
    config = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}[kind]
    model = AutoModelForCausalLM.from_config(
        config(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=layers,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            tie_word_embeddings=kind == "llama",
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            **({"head_dim": 12} if kind == "qwen3" else {}),
        )
    )
    return LanguageModel("tiny", model, CharacterCodec(alphabet=ALPHABET), "0")


def hears(kind: str = "qwen2", *, name: str = "conv_gmlp", inside: bool, layers: int = LAYERS) -> OmniModel:
    encoder = None
    if inside:
        config = WhisperConfig(
            d_model=HEARD,
            encoder_layers=layers,
            encoder_attention_heads=2,
            encoder_ffn_dim=4 * HEARD,
            max_source_positions=FRAMES,
        )
        whisper = WhisperEncoder(config)
        whisper.embed_positions.requires_grad_(False)
        front_end = MelShapes if whisper.conv1.weight.is_meta else WhisperFeatureExtractor
        encoder = AudioEncoder(whisper=whisper, feature_extractor=front_end(feature_size=80), window="padded")
    projector = build_audio_projector(name, hidden_size=HEARD, output_size=WIDTH, downsample_rate=4)
    return OmniModel(
        audio_projector=AudioTokens(projector=projector), audio_encoder=encoder, language_model=language_model(kind)
    )


def sounds(model: OmniModel) -> list[Example]:
    def sound() -> Sound:
        if model.audio_encoder is None:
            return Sound(torch.zeros(FRAMES, HEARD))
        with unset_fake_temporarily():
            return Sound(torch.zeros(FRAMES * 320))

    return [Example(content=[[1, 2], sound()], answer=[3] * n) for n in (10, 10, 6)]


def siglip() -> SiglipBackbone:
    config = SiglipVisionConfig(
        hidden_size=48,
        intermediate_size=100,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=PIXELS,
        patch_size=8,  # 7 x 7, which pooling does not divide
    )
    return SiglipBackbone(siglip=SiglipVisionModel(config))


def sees(*, name: str = "mean_pool", inside: bool, build: Any = siglip, newline: bool = False) -> OmniModel:
    backbone = build()

    def tokens() -> VisualTokens:
        projector = build_visual_projector(name, hidden_size=backbone.hidden_size, output_size=WIDTH)
        return VisualTokens(projector=projector, marks_places=True, newline=newline)

    encoder = VisionEncoder(backbone=backbone, name="tiny", mean=[0.5] * 3, std=[0.5] * 3) if inside else None
    return OmniModel(
        visual_projector=tokens(), video_projector=tokens(), vision_encoder=encoder, language_model=language_model()
    )


def pictures(
    model: OmniModel, *, frames: int = 1, branch: Any = "visual_projector", tiled: bool = False
) -> list[Example]:
    grid, views = ((1, 2), 3 * frames) if tiled else ((1, 1), frames)

    def seen() -> Seen:
        shown = torch.zeros(views, 7, 7, 48)
        if model.vision_encoder is not None:
            shown = torch.zeros(views, PIXELS, PIXELS, 3, dtype=torch.uint8)
        order = None
        if tiled:
            at = model.view_grid(branch, shown)
            order = token_order(PIXELS, 2 * PIXELS, image_size=PIXELS, max_tiles=2, view_grid=at, newline=True)
        return Seen(views=shown, seconds=(0.0,) * frames, branch=branch, grid=grid, order=order)

    return [Example(content=[seen(), [1] * 4], answer=[2] * n) for n in (8, 8, 5)]


def texts(model: OmniModel) -> list[Example]:
    return [Example(content=[[1] * (n - answer)], answer=[2] * answer) for n, answer in ((60, 20), (44, 14), (24, 8))]


class LiveBytes(TorchDispatchMode):
    """Adds up what operations give memory to, until it is freed."""

    def __init__(self, own: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._known = weakref.WeakSet[Any]()
        self._live = self.peak = 0
        for tensor in own:
            self._note(tensor)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor)
        return result

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            weakref.finalize(storage, self._freed, storage.nbytes())
            self._live += storage.nbytes()
            self.peak = max(self.peak, self._live)

    def _freed(self, size: int) -> None:
        self._live -= size


def real_peak(
    model: OmniModel, batch: Batch, trained: Sequence[str], precision: str, *, packed: bool, checkpointing: bool = False
) -> int:
    """The most bytes that are alive at once in two steps of the real loop."""
    stage = Stage(name="s", paper="", learning_rates=dict.fromkeys(trained, 1e-4), data={})
    groups = apply_stage(model.parts(), stage)
    examples = batch(model)
    live = LiveBytes([*model.parameters(), *model.buffers()])
    with live:
        train(
            model,
            lambda step: model.packed(examples).loss if packed else model(examples),
            TrainingOptions(precision=precision, gradient_checkpointing=checkpointing),
            steps=2,
            learning_rates=lambda step: [1e-4] * len(groups),
            groups=groups,
        )
    return live.peak


def assert_as_trained(
    build: Callable[[], OmniModel], batch: Batch, trained: Sequence[str], precision: str, *, packed: bool = False
) -> Memory:
    torch.manual_seed(0)
    with torch.device("meta"):
        model = build()
    memory = trace(model, batch, trained=trained, precision=PRECISIONS[precision], packed=packed)
    real = real_peak(build(), batch, trained, precision, packed=packed)
    # The issue asks for 15%; what a trace leaves out are tensors of whole numbers alone.
    assert memory.total == pytest.approx(real, rel=0.05)
    return memory


PRECISE = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


@PRECISE
@pytest.mark.parametrize(
    "trained", [SOUND[1:], SOUND, (*SOUND, "language_model")], ids=["projector", "with encoder", "everything"]
)
def test_a_step_on_sounds_takes_what_is_traced(trained, precision):
    assert_as_trained(lambda: hears(inside="audio_encoder" in trained), sounds, trained, precision)


@pytest.mark.parametrize("name", sorted(set(AUDIO_PROJECTORS) - {"conv_gmlp_budget"}))
def test_every_audio_projector_takes_what_is_traced(name):
    assert_as_trained(lambda: hears(name=name, inside=True), sounds, SOUND, "bfloat16")


@PRECISE
@pytest.mark.parametrize(
    "trained",
    [
        ("visual_projector",),
        ("vision_encoder", "visual_projector"),
        ("vision_encoder", "visual_projector", "language_model"),
    ],
    ids=["image_1", "image_2", "image_3"],
)
def test_a_step_on_pictures_takes_what_is_traced(trained, precision):
    assert_as_trained(lambda: sees(inside="vision_encoder" in trained), pictures, trained, precision)


@pytest.mark.parametrize("name", VISUAL_PROJECTORS)
def test_every_visual_projector_takes_what_is_traced(name):
    trained = ("vision_encoder", "visual_projector")
    assert_as_trained(lambda: sees(name=name, inside=True), pictures, trained, "bfloat16")


def test_a_convolutional_encoder_takes_what_is_traced():
    def build() -> OmniModel:
        return sees(
            inside=True, build=lambda: load_timm("test_efficientnet", image_size=PIXELS, stride=8, pretrained=False)
        )

    assert_as_trained(build, pictures, ("vision_encoder", "visual_projector"), "bfloat16")


@PRECISE
@pytest.mark.parametrize("tiled", [False, True], ids=["video", "AnyRes"])
def test_a_step_on_video_takes_what_is_traced(tiled, precision):
    def batch(model: OmniModel) -> list[Example]:
        return pictures(model, frames=3, branch="video_projector", tiled=tiled)

    memory = assert_as_trained(lambda: sees(inside=False, newline=True), batch, ("video_projector",), precision)
    # Of 7 x 7 patches 3 x 3 remain; two tiles side by side are 3 rows of 6 and a newline.
    assert memory.tokens == 3 * (9 + tiled * 3 * 7) + 4 + 1 + 8 + 1


@PRECISE
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_a_pack_of_text_takes_what_is_traced(kind, precision):
    def build() -> OmniModel:
        return OmniModel(language_model=language_model(kind))

    memory = assert_as_trained(build, texts, ("language_model",), precision, packed=True)
    assert (memory.batch_size, memory.tokens) == (3, 60 + 1 + 1)


@PRECISE
def test_a_pack_with_pictures_takes_what_is_traced(precision):
    trained = ("visual_projector", "language_model")
    assert_as_trained(lambda: sees(inside=False), pictures, trained, precision, packed=True)


@PRECISE
@pytest.mark.parametrize("packed", [False, True])
def test_layers_that_are_computed_again_take_what_is_traced(packed, precision):
    def build() -> OmniModel:
        return OmniModel(language_model=language_model(layers=8))

    with torch.device("meta"):
        plain, again = build(), build()
    options = {"trained": ("language_model",), "precision": PRECISIONS[precision], "packed": packed}
    memory = trace(again, texts, checkpointing=True, **options)
    real = real_peak(build(), texts, ("language_model",), precision, packed=packed, checkpointing=True)
    assert memory.total == pytest.approx(real, rel=0.05)
    whole = trace(plain, texts, **options)
    assert memory.total < whole.total
    # Each layer passes forward once more.
    assert whole.flops < memory.flops < 4 / 3 * whole.flops


@PRECISE
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize(("tokens", "answer"), [(64, 60), (256, 20)])
def test_scoring_takes_what_is_traced(kind, precision, tokens, answer):
    def batch(model: OmniModel) -> list[Example]:
        return [Example(content=[[1] * (tokens - answer - 1)], answer=[2] * answer)]

    with torch.device("meta"):
        model = OmniModel(language_model=language_model(kind))
    memory = trace(model, batch, trained=(), precision=PRECISIONS[precision], packed=True)
    scorer = language_model(kind)
    scorer.model.eval().requires_grad_(False)
    options = ScoringOptions(budget_tokens=tokens, precision=precision)
    live = LiveBytes([*scorer.model.parameters(), *scorer.model.buffers()])
    # Without inference mode, which hides the insides of operations.
    with torch.no_grad(), live:
        score = answer_losses.__wrapped__
        score(text_model(scorer), lambda places: batch(model), [tokens], options, ["a"], scorer="tiny")
    assert memory.total == pytest.approx(live.peak, rel=0.05)
    assert sum(part.gradients + part.optimizer for part in memory.parts) == 0


def traced(
    build: Callable[[], OmniModel], batch: Batch, *trained: str, precision: str = "float32", **more: Any
) -> Memory:
    with torch.device("meta"):
        model = build()
    return trace(model, batch, trained=trained, precision=PRECISIONS[precision], **more)


def text_of(layers: int) -> Callable[[], OmniModel]:
    return lambda: OmniModel(language_model=language_model(layers=layers))


@PRECISE
def test_a_frozen_decoder_layer_by_hand(precision):
    # It keeps its activations, since the gradient flows through it. With c bytes in products, width d, inner f: both
    # norms' inputs in float32, 8 d, with their scales, 8; queries, result and as many keys and values, 4 c d; the
    # softmax, 4 a head; SwiGLU's three factors, 3 c f; a mask. And under autocast a copy of the layer's weights.
    c = 2 if precision == "bfloat16" else 4
    two, three = (traced(lambda n=n: _hears_with(n), sounds, "audio_projector", precision=precision) for n in (2, 3))
    positions, longest = 3 * (2 + 16 + 1 + 10), 2 + 16 + 1 + 10
    by_hand = positions * (8 * WIDTH + 8 + 4 * c * WIDTH + 4 * HEADS + 3 * c * INNER) + c * 3 * longest**2
    kv = WIDTH // HEADS * 2
    if precision == "bfloat16":
        by_hand += 2 * (2 * WIDTH * WIDTH + 2 * WIDTH * kv + 3 * WIDTH * INNER)
    assert three.parts[1].activations - two.parts[1].activations == pytest.approx(by_hand, rel=0.02)


def _hears_with(layers: int) -> OmniModel:
    projector = build_audio_projector("conv_gmlp", hidden_size=HEARD, output_size=WIDTH, downsample_rate=4)
    return OmniModel(audio_projector=AudioTokens(projector=projector), language_model=language_model(layers=layers))


def test_operations_by_hand():
    # A matrix of n weights takes 2 n operations a position forward and as many for each of its two gradients.
    two, three = (traced(text_of(layers), texts, "language_model", packed=True) for layers in (2, 3))
    positions, kv = 61 + 45 + 25, WIDTH // HEADS * 2
    weights = 2 * WIDTH * WIDTH + 2 * WIDTH * kv + 3 * WIDTH * INNER
    attention = 2 * 2 * WIDTH * (61**2 + 45**2 + 25**2)
    # Flash attention computes its scores a second time on the way back: five products for two.
    assert three.flops - two.flops == 3 * 2 * positions * weights + attention + attention * 5 // 2


def test_a_trained_parameter_takes_sixteen_bytes_in_float32_and_with_a_master_copy():
    for precision in PRECISIONS:
        (part,) = traced(text_of(2), texts, "language_model", packed=True, precision=precision).parts
        tensors = len(list(language_model(layers=2).model.parameters()))
        frequencies = part.weights % part.parameters
        kept = part.weights + part.gradients + part.optimizer - frequencies
        assert kept == pytest.approx(16 * part.parameters + 4 * tensors, abs=128)
    (part,) = traced(text_of(2), texts, packed=True, precision="bfloat16_weights").parts
    assert part.weights == pytest.approx(2 * part.parameters, abs=128)


def test_tied_embeddings_are_counted_once():
    (part,) = traced(lambda: OmniModel(language_model=language_model("llama")), texts, "language_model").parts
    assert part.parameters == sum(p.numel() for p in language_model("llama").model.parameters())
    assert part.weights == pytest.approx(4 * part.parameters, abs=128)


def test_a_part_outside_the_step_has_parameters_and_takes_nothing():
    whisper = WhisperEncoder(WhisperConfig(d_model=HEARD, encoder_layers=1, encoder_attention_heads=2))
    memory = traced(lambda: hears(inside=False), sounds, "audio_projector", outside={"audio_encoder": whisper})
    encoder, projector, language = memory.parts
    assert (encoder.name, projector.name, language.name) == ("audio_encoder", "audio_projector", "language_model")
    assert encoder.parameters == sum(p.numel() for p in whisper.parameters())
    assert (encoder.weights, encoder.activations) == (0, 0)
    assert language.trained_parameters == language.gradients == language.optimizer == 0
    assert language.activations > 0


def test_fixed_positions_of_whisper_are_not_trained():
    encoder = traced(lambda: hears(inside=True), sounds, *SOUND).parts[0]
    assert encoder.parameters - encoder.trained_parameters == FRAMES * HEARD


def test_the_parts_and_what_is_more_at_the_worst_moment_are_all_of_it():
    memory = traced(lambda: sees(inside=True), pictures, "vision_encoder", "visual_projector")
    assert memory.total == memory.kept + sum(part.activations for part in memory.parts) + memory.passing
    video = next(part for part in memory.parts if part.name == "video_projector")
    # The other branch's projector is there and does nothing.
    assert (video.weights > 0, video.gradients, video.optimizer, video.activations) == (True, 0, 0, 0)


def test_an_unknown_part_is_named():
    with pytest.raises(
        LabError, match=r"unknown part 'video_projector'.*choose one of: audio_projector, language_model"
    ):
        traced(lambda: hears(inside=False), sounds, "video_projector")
