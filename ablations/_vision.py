"""What the studies of pictures and video share: the columns of the table, the base of each branch, and the rungs."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from lab.study.ablation import Column, Rung
from lab.training.parameters import VisionParameters

NOTEBOOK = "vision_language"

ACCURACY = Column(
    metric="test_accuracy", label="test accuracy", unit="%", better="higher", scale=100, interval="error_rate"
)
COSTS = (
    Column(metric="test_chance", label="by guessing", unit="%", better="higher", scale=100),
    Column(metric="test_loss", label="test loss", unit="nats a token", better="lower"),
    Column(metric="visual_tokens_per_question", label="visual tokens", unit="a question", better="lower"),
    Column(metric="lm_tokens", label="LM tokens in training", unit="M", better="lower", scale=1e-6),
    Column(metric="decoded_frames", label="frames in training", unit="thousands", better="lower", scale=1e-3),
    Column(metric="projector_parameters", label="projector size", unit="M parameters", better="lower", scale=1e-6),
    Column(metric="training_seconds", label="training", unit="s", better="lower"),
    Column(metric="peak_memory_bytes", label="peak memory", unit="GB", better="lower", scale=1e-9),
)
SMOKE = MappingProxyType(
    {
        "num_images": 48,
        "num_videos": 36,
        "num_test": 18,
        "pretraining_steps": 60,
        "steps": 4,
        "batch_tokens": 1500,
        "warmup_steps": 1,
        "checkpoint_every": 0,
    }
)
# A golden run of a cell with video, and of one without.
GOLDEN = MappingProxyType(
    {
        "num_images": 48,
        "num_videos": 36,
        "num_test": 18,
        "steps": 8,
        "warmup_steps": 1,
        "checkpoint_every": 0,
    }
)
IMAGE_GOLDEN = MappingProxyType({name: value for name, value in GOLDEN.items() if name != "num_videos"})

# Studies of the image branch: questions about stills, one stage. A batch has equally many examples for every row,
# whatever its tokens. Which of 169, 182 and 196 tokens the paper's 729 patches become is not found; 36 divide evenly.
IMAGE_BASE = VisionParameters(
    curriculum="image", videos="", num_videos=0, num_images=4000, num_test=960, batch_size=48, steps=300
)
IMAGE_CPU = (
    "a small rung: an encoder that is frozen and a character language model of 1.3M parameters, trained; stills "
    "composed of cut-out pictures, two CPU cores; not the paper's scale"
)
_HUB_IMAGES = MappingProxyType(
    {
        "images": "conversation@hub:liuhaotian/LLaVA-Instruct-150K",
        "test_source": "image_choices@hub:lmms-lab/MMBench_EN:default:dev",
        "num_test": 2000,
        "marks_places": False,
        "stride": 0,
        "image_size": 384,
        "train_language_model": False,
        "device": "cuda",
        "precision": "bfloat16",
        "checkpoint_every": 500,
    }
)
IMAGE_RUNGS = (
    Rung(
        name="gpu",
        description="one GPU: SigLIP-base, Qwen2.5-0.5B, both frozen, LLaVA's instructions; not the paper's scale",
        workers=1,
        changes={
            **_HUB_IMAGES,
            "vision_encoder": "google/siglip-base-patch16-384",
            "language_model": "Qwen/Qwen2.5-0.5B-Instruct",
            "num_images": 100_000,
            "steps": 5_000,
            "batch_tokens": 32_768,
            "learning_rate": 1e-3,
            "warmup_steps": 150,
        },
    ),
    Rung(
        name="paper",
        description="the paper's encoder, a 7B language model, both frozen as in its first image stage, and that "
        "stage's learning rate; its data and steps are not found, so these are ours",
        workers=1,
        changes={
            **_HUB_IMAGES,
            "vision_encoder": "google/siglip-so400m-patch14-384",
            "language_model": "Qwen/Qwen2.5-7B-Instruct",
            "num_images": 600_000,
            "steps": 10_000,
            "batch_tokens": 131_072,
            "learning_rate": 1e-3,
            "warmup_steps": 300,
        },
    ),
    Rung(
        name="smoke",
        description="the whole path in minutes, trained for a few steps: its numbers say nothing",
        recorded=False,
        changes={name: value for name, value in SMOKE.items() if name != "num_videos"},
    ),
)


def without(*names: str, overruled: tuple[str, ...] = (), **changes: Any) -> tuple[Rung, ...]:
    """The larger rungs of a study of images whose rows change these parameters themselves, with other `changes`.

    What is in `overruled` is the rung's own where a row says nothing of it.
    """
    return tuple(
        replace(
            rung,
            base={name: rung.changes[name] for name in overruled},
            changes={**{k: v for k, v in rung.changes.items() if k not in (*names, *overruled)}, **changes},
        )
        if rung.name != "smoke"
        else rung
        for rung in IMAGE_RUNGS
    )


# Steps, shares and learning rates were chosen on the development split (ablations/LOG.md).
VIDEO_BASE = VisionParameters(
    curriculum="direct",
    num_images=4000,
    num_videos=3000,
    num_test=1080,
    language_model="words",
    pretraining_steps=2500,
    steps=450,
    first_share=0.3,
    image_share=0.3,
    learning_rate=2e-3,
)
_HUB_VIDEOS: MappingProxyType[str, Any] = MappingProxyType(
    {
        "images": "conversation@hub:liuhaotian/LLaVA-Instruct-150K",
        "videos": "sharegpt4video@hub:ShareGPT4Video/ShareGPT4Video",
        "test_source": "next_qa@hub:lmms-lab/NExTQA:MC",
        "num_test": 2000,
        "frames_per_second": 1.0,
        "marks_places": False,
        "stride": 0,
        "device": "cuda",
        "precision": "bfloat16",
        "checkpoint_every": 500,
    }
)
# Scenes of at most 12 seconds show all they have in 8 frames; real videos do not (section 2 of the paper).
_PAPER_FRAMES = MappingProxyType({"max_frames": 48})
VIDEO_RUNGS = (
    Rung(
        name="cpu",
        description="a small rung: EfficientNet-Lite0 and a language model of words of 1.3M parameters, taught on "
        "scenes in symbols; scenes composed of cut-out pictures, two CPU cores; not the paper's scale",
    ),
    Rung(
        name="gpu",
        description="one GPU: SigLIP-base, Qwen2.5-0.5B, both frozen, LLaVA and ShareGPT4Video, tested on NExT-QA; "
        "not the paper's scale",
        workers=1,
        base=_PAPER_FRAMES,
        changes={
            **_HUB_VIDEOS,
            "vision_encoder": "google/siglip-base-patch16-384",
            "image_size": 384,
            "language_model": "Qwen/Qwen2.5-0.5B-Instruct",
            "train_language_model": False,
            "num_images": 100_000,
            "num_videos": 20_000,
            "steps": 10_000,
            "batch_tokens": 32_768,
            "learning_rate": 1e-4,
            "warmup_steps": 300,
        },
    ),
    Rung(
        name="paper",
        description="the paper's encoder, a 7B language model, both frozen, and its learning rate; its data, steps "
        "and shares are not found, so these are ours",
        workers=1,
        base=_PAPER_FRAMES,
        changes={
            **_HUB_VIDEOS,
            "vision_encoder": "google/siglip-so400m-patch14-384",
            "image_size": 384,
            "language_model": "Qwen/Qwen2.5-7B-Instruct",
            "train_language_model": False,
            "num_images": 600_000,
            "num_videos": 40_000,
            "steps": 20_000,
            "batch_tokens": 131_072,
            "learning_rate": 4e-6,
            "warmup_steps": 500,
        },
    ),
    Rung(
        name="smoke",
        description="the whole path in minutes, trained for a few steps: its numbers say nothing",
        recorded=False,
        # 48 frames in tiles are one example of 2,200 tokens.
        changes={**SMOKE, "batch_tokens": 2400},
    ),
)
