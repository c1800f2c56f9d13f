"""Predicted bytes against those of small vision models that are really trained."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, SiglipVisionConfig, SiglipVisionModel

from lab.errors import LabError
from lab.parts.any_resolution import token_order
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.parts.vision_backbones import SiglipBackbone, VisionBackbone, load_timm
from lab.parts.vision_encoders import VisionEncoder
from lab.parts.visual_projectors import VISUAL_PROJECTORS, build_visual_projector
from lab.parts.visual_tokens import Seen, VisualTokens
from lab.training.samples import Tiling
from lab.training.saved_bytes import PRECISIONS
from lab.training.stages import Stage, apply_stage
from lab.training.vision_memory import VisionMemory, VisionSample, vision_memory
from tests.parts.tiny_models import gpt2
from tests.training.test_memory import ALPHABET, LARGER, SMALL, language_config

BATCH = 3
STILL = VisionSample(
    kind="image_text",
    branch="visual_projector",
    frames=1,
    frame_size=(56, 56),
    tiling=Tiling(),
    question_tokens=4,
    answer_tokens=8,
)
VIDEO = VisionSample(**{**vars(STILL), "kind": "video_text", "branch": "video_projector", "frames": 3})
TILED = VisionSample(**{**vars(VIDEO), "frame_size": (56, 112), "tiling": Tiling(max_tiles=2)})
PROJECTOR, WITH_ENCODER = ("visual_projector",), ("visual_projector", "vision_encoder")
EVERYTHING = (*WITH_ENCODER, "language_model")


def siglip() -> SiglipBackbone:
    config = SiglipVisionConfig(
        hidden_size=48,
        intermediate_size=100,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=56,
        patch_size=8,  # 7 x 7, which pooling does not divide
    )
    return SiglipBackbone(siglip=SiglipVisionModel(config))


def convolutional() -> VisionBackbone:
    return load_timm("test_efficientnet", image_size=56, stride=8, pretrained=False)


def tokens(name: str, width: int, hidden_size: int, newline: bool = False) -> VisualTokens:
    options: dict[str, Any] = {"depth": 1} if name == "c_abstractor" else {}
    projector = build_visual_projector(name, hidden_size=hidden_size, output_size=width, **options)
    return VisualTokens(projector=projector, marks_places=True, newline=newline)


def predicted(
    size: dict[str, int],
    trained: tuple[str, ...],
    precision: str = "float32",
    *,
    kind: str = "qwen2",
    name: str = "mean_pool",
    sample: VisionSample = STILL,
    build: Any = siglip,
    **options: Any,
) -> VisionMemory:
    with torch.device("meta"):
        backbone = build()
        projector = tokens(name, size["width"], backbone.hidden_size, sample.tiling.max_tiles > 1)
        language_model = AutoModelForCausalLM.from_config(language_config(kind, size))
    return vision_memory(
        **{
            "backbone": backbone,
            "projector": projector,
            "language_model": language_model,
            "sample": sample,
            "trained": trained,
            "precision": PRECISIONS[precision],
            "batch_tokens": 10_000,
            "batch_size": BATCH,
            **options,
        }
    )


class Trained:
    """A model of that size, trained for a step, and the bytes that it took."""

    def __init__(
        self,
        size: dict[str, int],
        trained: tuple[str, ...],
        precision: str = "float32",
        *,
        kind: str = "qwen2",
        name: str = "mean_pool",
        sample: VisionSample = STILL,
        build: Any = siglip,
        packed: bool = False,
    ) -> None:
        torch.manual_seed(0)
        backbone = build()
        encoder = VisionEncoder(backbone=backbone, name="tiny", mean=[0.5] * 3, std=[0.5] * 3)
        language_model = AutoModelForCausalLM.from_config(language_config(kind, size))
        model = OmniModel(
            visual_projector=tokens(name, size["width"], backbone.hidden_size, sample.tiling.max_tiles > 1),
            video_projector=tokens(name, size["width"], backbone.hidden_size, sample.tiling.max_tiles > 1),
            language_model=LanguageModel("tiny", language_model, CharacterCodec(alphabet=ALPHABET), "0"),
            vision_encoder=encoder if "vision_encoder" in trained else None,
        )
        stage = Stage(
            name="one", paper="", trained=trained, learning_rates=dict.fromkeys(trained, 1e-3), data={"images": 1.0}
        )
        model.train()
        groups = apply_stage(model.parts(), stage)
        optimizer = torch.optim.AdamW(groups, fused=True)
        grid = (sample.frame_size[0] // 56, sample.frame_size[1] // 56) if sample.tiling.max_tiles > 1 else (1, 1)
        views = sample.frames * (1 if grid == (1, 1) else 1 + grid[0] * grid[1])
        order = None
        if grid != (1, 1):
            view_grid = model.visual_projector.projector.output_grid(*backbone.grid)
            order = token_order(*sample.frame_size, image_size=56, max_tiles=2, view_grid=view_grid, newline=True)
        questions = []
        for _ in range(BATCH):
            pixels = torch.randint(0, 256, (views, 56, 56, 3), dtype=torch.uint8)
            with torch.no_grad():
                seen = pixels if "vision_encoder" in trained else encoder(pixels)
            looked = Seen(views=seen, seconds=(0.0,) * sample.frames, grid=grid, order=order, branch=sample.branch)
            questions.append([looked, [1] * sample.question_tokens])
        answers = [
            [2] * sample.answer_tokens,
            [3] * sample.answer_tokens,
            [4] * (sample.answer_tokens - (0 if packed else 3)),
        ]
        examples = [Example(content=q, answer=a) for q, a in zip(questions, answers, strict=True)]
        own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
        kept: dict[int, torch.Tensor] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            place = tensor.untyped_storage().data_ptr()
            if place not in own:
                kept.setdefault(place, tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            with torch.autocast("cpu", torch.bfloat16, enabled=PRECISIONS[precision].autocast):
                answer = model.packed(examples).loss if packed else model(examples)
            loss = answer.loss.sum()
        self.activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        kept.clear()
        loss.backward()
        learning = [parameter for group in groups for parameter in group["params"]]
        # A projector that a batch does not pass has no gradient in it, and its room all the same.
        self.gradients = sum(p.numel() * p.element_size() for p in learning)
        self.without_gradient = [p for p in learning if p.grad is None]
        optimizer.step()
        self.weights = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
        states = [state for entry in optimizer.state.values() for state in entry.values()]
        self.optimizer = sum(state.numel() * state.element_size() for state in states)


def assert_as_trained(memory: VisionMemory, real: Trained) -> None:
    assert real.without_gradient == []
    assert sum(part.weights for part in memory.parts) == real.weights
    assert sum(part.gradients for part in memory.parts) == real.gradients
    assert sum(part.optimizer for part in memory.parts) == real.optimizer
    activations = sum(part.saved.everything for part in memory.parts)
    # The issue asks for 15%; the formulas leave out index tensors alone.
    assert activations == pytest.approx(real.activations, rel=0.03)
    total = real.weights + real.gradients + real.optimizer + real.activations + memory.logits
    assert memory.total == pytest.approx(total, rel=0.15)


@pytest.mark.parametrize("size", [SMALL, LARGER], ids=["small", "larger"])
@pytest.mark.parametrize("trained", [PROJECTOR, WITH_ENCODER, EVERYTHING], ids=["image_1", "image_2", "image_3"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prediction_is_what_a_small_vision_model_takes_in_training(size, trained, precision):
    assert_as_trained(predicted(size, trained, precision), Trained(size, trained, precision))


@pytest.mark.parametrize("name", VISUAL_PROJECTORS)
@pytest.mark.parametrize("trained", [PROJECTOR, WITH_ENCODER], ids=["projector", "with encoder"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prediction_holds_for_every_visual_projector(name, trained, precision):
    assert_as_trained(predicted(SMALL, trained, precision, name=name), Trained(SMALL, trained, precision, name=name))


@pytest.mark.parametrize("sample", [VIDEO, TILED], ids=["video", "AnyRes"])
@pytest.mark.parametrize("trained", [("video_projector",), ("video_projector", "language_model")])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prediction_holds_for_video_and_tiles(sample, trained, precision):
    options = {"sample": sample, "kind": "llama"}
    assert_as_trained(predicted(SMALL, trained, precision, **options), Trained(SMALL, trained, precision, **options))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prediction_holds_for_a_convolutional_encoder(precision):
    options = {"build": convolutional}
    assert_as_trained(
        predicted(SMALL, WITH_ENCODER, precision, **options), Trained(SMALL, WITH_ENCODER, precision, **options)
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_pack_takes_what_a_batch_of_as_many_positions_takes(precision):
    trained = ("visual_projector", "language_model")
    memory, real = predicted(SMALL, trained, precision), Trained(SMALL, trained, precision, packed=True)
    activations = sum(part.saved.everything for part in memory.parts)
    assert activations == pytest.approx(real.activations, rel=0.15)
    total = real.weights + real.gradients + real.optimizer + real.activations + memory.logits
    assert memory.total == pytest.approx(total, rel=0.15)


def test_parts_are_those_of_the_model_and_a_frozen_encoder_is_outside_the_step():
    memory = predicted(SMALL, PROJECTOR)
    encoder, visual, video, language_model = memory.parts
    assert [part.name for part in memory.parts] == [
        "vision_encoder",
        "visual_projector",
        "video_projector",
        "language_model",
    ]
    assert encoder.parameters > 0
    assert (encoder.weights, encoder.saved.everything) == (0, 0)
    # A window of 4 patches of 48 to 48, then 48 to 32 to 32, and 41 waves to 32.
    assert visual.trained_parameters == 4 * 48 * 48 + 48 + 48 * 32 + 32 + 32 * 32 + 32 + 41 * 32
    # The other branch's projector is there and does nothing.
    assert (video.parameters, video.trained_parameters) == (visual.parameters, 0)
    assert (video.gradients, video.optimizer, video.saved.everything) == (0, 0, 0)
    assert video.weights == visual.weights
    assert language_model.trained_parameters == 0


@pytest.mark.parametrize(("sample", "frame_tokens", "views"), [(STILL, 9, 1), (VIDEO, 9, 1), (TILED, 9 + 3 * 7, 3)])
def test_tokens_are_those_of_all_frames_question_start_answer_and_end(sample, frame_tokens, views):
    memory = predicted(SMALL, EVERYTHING, sample=sample)
    assert (memory.frame_tokens, memory.views) == (frame_tokens, views)
    assert memory.tokens == sample.frames * frame_tokens + 4 + 1 + 8 + 1


def test_samples_of_a_batch_follow_from_its_tokens():
    memory = predicted(SMALL, PROJECTOR, sample=VIDEO, batch_size=None, batch_tokens=1000)
    assert memory.batch_size == round(1000 / (27 + 14))
    assert memory.logits == 2 * 4 * 300 * memory.batch_size * 9
    assert predicted(SMALL, PROJECTOR, sample=VIDEO, batch_size=None, batch_tokens=41).batch_size == 1


def test_bytes_saved_grow_evenly_with_the_samples():
    one, two, five = (predicted(SMALL, PROJECTOR, "bfloat16", batch_size=n).parts[1].saved for n in (1, 2, 5))
    assert five.rest - one.rest == 4 * (two.rest - one.rest)
    # Copies of the MLP's two matrices, 2 bytes a weight; below the others no gradient goes on.
    assert one.rest_copies == five.rest_copies == 2 * (48 * 32 + 32 * 32)


@pytest.mark.parametrize(
    ("sample", "trained", "options", "message"),
    [
        (STILL, ("audio_projector",), {}, "unknown part 'audio_projector'"),
        (STILL, PROJECTOR, {"batch_size": 0}, "batch_size is 0; expected at least 1"),
        (STILL, PROJECTOR, {"language_model": gpt2(10)}, "unknown form of language model for the formulas: 'gpt2'"),
        (STILL, (), {}, "nothing is trained: choose at least one of: vision_encoder"),
        (
            VisionSample(**{**vars(VIDEO), "frames": 0}),
            ("video_projector",),
            {},
            "nothing is seen, so nothing can train",
        ),
        (
            VIDEO,
            ("video_projector",),
            {"batch_size": None, "batch_tokens": 40},
            r"a sample of video_text takes 41 tokens, more than batch_tokens \(40\)",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(sample, trained, options, message):
    with pytest.raises(LabError, match=message):
        predicted(SMALL, trained, sample=sample, **options)


@pytest.mark.parametrize("name", ["frames", "question_tokens", "answer_tokens"])
def test_a_sample_that_cannot_be_is_refused(name):
    with pytest.raises(LabError, match=f"{name} is -1; expected at least 0"):
        VisionSample(**{**vars(STILL), name: -1})


def test_where_nothing_is_seen_the_language_model_trains_alone():
    memory = predicted(
        SMALL, ("video_projector", "language_model"), sample=VisionSample(**{**vars(VIDEO), "frames": 0})
    )
    assert memory.parts[2].saved.everything == 0
    assert memory.tokens == 4 + 1 + 8 + 1
