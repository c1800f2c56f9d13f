"""What the declarations of the studies of video share: their base and their rungs (table 10 of the paper)."""

from types import MappingProxyType
from typing import Any

from lab.study.ablation import Rung
from lab.study.vision_study import SMOKE
from lab.training.parameters import VisionParameters

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
