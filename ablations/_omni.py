"""What the studies of the whole model share: its stages, data, tests, columns, and the rungs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lab.study.ablation import Column, Rung
from lab.training.parameters import OmniParameters

NOTEBOOK = "baichuan_omni"
PROJECTORS = ("visual_projector", "video_projector", "audio_projector")
ENCODERS = ("vision_encoder", "audio_encoder")
_IMAGES = {"vqa": 3.0, "interleaved": 1.0, "captions": 1.0}
_ALL = {"image_text": 2.0, "video_text": 2.0, "audio_text": 2.0, "spoken_vqa": 2.0, "quarters": 1.0, "pure_text": 1.0}

# Shares and mixing weights are ours: the paper's are not found.
BRANCHES: Mapping[str, Any] = MappingProxyType(
    {
        "image_1": {"share": 0.05, "data": {"captions": 1.0}},
        "image_2": {"share": 0.10, "data": _IMAGES},
        "image_3": {"share": 0.20, "data": {**_IMAGES, "pure_text": 1.0}},
        "video": {
            "share": 0.15,
            "data": {"vqa": 1.0, "video_text": 3.0},
            "starts_as": {"video_projector": "visual_projector"},
        },
        "audio": {"share": 0.15, "data": {"asr_audio_text": 1.0}},
    }
)
ALIGNMENT: Mapping[str, Any] = MappingProxyType({"share": 0.20, "data": _ALL})
SFT: Mapping[str, Any] = MappingProxyType({"share": 0.15, "data": _ALL})

# Of a language model of 1.3M parameters in hundreds of steps: at the paper's 1e-5 and 4e-6 it would learn nothing.
SMALL_RATES: Mapping[str, Any] = MappingProxyType(
    {
        "image_1": {"visual_projector": 1e-3},
        "image_2": {"visual_projector": 1e-3, "vision_encoder": 1e-4},
        "image_3": {"visual_projector": 1e-3, "vision_encoder": 1e-4, "language_model": 5e-4},
        "video": {"video_projector": 1e-3},
        "audio": {"audio_projector": 1e-3, "audio_encoder": 1e-4},
        "omni_alignment": {
            **dict.fromkeys(PROJECTORS, 1e-3),
            **dict.fromkeys(ENCODERS, 1e-4),
            "language_model": 5e-4,
        },
        "sft": {**dict.fromkeys(PROJECTORS, 5e-4), **dict.fromkeys(ENCODERS, 5e-5), "language_model": 3e-4},
    }
)
# The paper's where they are found; the others are ours, as low as its other rates.
PAPER_RATES: Mapping[str, Any] = MappingProxyType(
    {
        "audio": {"audio_projector": 1e-4, "audio_encoder": 1e-5},
        **{name: dict.fromkeys((*PROJECTORS, *ENCODERS, "language_model"), 1e-5) for name in ("omni_alignment", "sft")},
    }
)

# What so small a model can learn of video: where a way ends, and which way it goes (the log).
VIDEO = "scenes:4-6:2-2:ends,direction"
_TEXT = "bigbench:plurals,past,questions,negations,wikidata"
BASE = OmniParameters(
    data={
        "captions": "descriptions",
        "vqa": "stills",
        "interleaved": "interleaved",
        "pure_text": f"text:{_TEXT}+chatterbot",
        "image_text": "stills",
        "video_text": VIDEO,
        "asr_audio_text": "speech:default",
        "audio_text": "speech:default",
        "spoken_vqa": "spoken:espeak:stills",
        "quarters": "quarters:espeak:descriptions",
    },
    tests={
        "pictures": "stills",
        "video": VIDEO,
        "speech": "speech:default",
        "text": f"text:{_TEXT}",
        "spoken": "spoken:espeak:stills",
    },
    num_samples=4000,
    num_test=240,
    num_between=60,
    steps=1600,
    batch_tokens=600,
    checkpoint_every=100,
)


def accuracy(test: str, label: str) -> Column:
    """The column of one test's accuracy."""
    metric = f"{test}_accuracy"
    return Column(metric=metric, label=label, unit="%", better="higher", scale=100, interval="error_rate", test=test)


COLUMNS = (
    accuracy("pictures", "pictures"),
    accuracy("video", "video"),
    accuracy("spoken", "spoken questions about pictures"),
    Column(
        metric="speech_character_error_rate",
        label="speech, CER",
        unit="%",
        better="lower",
        scale=100,
        interval="character_error_rate",
        test="speech",
    ),
    Column(metric="text_loss", label="text, loss", unit="nats a token", better="lower"),
    Column(metric="lm_tokens", label="LM tokens in training", unit="M", better="lower", scale=1e-6),
    Column(metric="training_seconds", label="training", unit="s", better="lower"),
    Column(metric="peak_memory_bytes", label="peak memory", unit="GB", better="lower", scale=1e-9),
)
CPU = (
    "a small rung: Whisper-tiny.en, EfficientNet-Lite0 and a character language model of 1.3M parameters, all trained; "
    "recorded speech, composed pictures and scenes, questions said by eSpeak NG, two CPU cores; not the paper's scale"
)
_INSTRUCTIONS, _VIDEOS = (
    "conversation@hub:liuhaotian/LLaVA-Instruct-150K",
    "sharegpt4video@hub:ShareGPT4Video/ShareGPT4Video",
)
_CHAT = "text:hub:HuggingFaceH4/ultrachat_200k:default:train_sft"
_HUB_DATA = {
    **dict.fromkeys(("captions", "vqa", "interleaved", "image_text"), _INSTRUCTIONS),
    "pure_text": _CHAT,
    "video_text": _VIDEOS,
    **dict.fromkeys(("asr_audio_text", "audio_text"), "speech:hub:openslr/librispeech_asr:clean"),
    "spoken_vqa": f"spoken:kokoro:{_INSTRUCTIONS}",
    "quarters": f"quarters:kokoro:{_INSTRUCTIONS}",
}
_CHOICES = "image_choices@hub:lmms-lab/MMBench_EN:default:dev"
_HUB: Mapping[str, Any] = MappingProxyType(
    {
        "data": _HUB_DATA,
        "tests": {
            "pictures": _CHOICES,
            "video": "next_qa@hub:lmms-lab/NExTQA:MC",
            "speech": "speech:hub:openslr/librispeech_asr:clean",
            "text": _CHAT,
            "spoken": f"spoken:kokoro:{_CHOICES}",
        },
        "num_test": 2000,
        "num_between": 200,
        "device": "cuda",
        "precision": "bfloat16",
        "checkpoint_every": 500,
        "warmup_steps": 300,
    }
)
_SIGHT = {"image_size": 384, "stride": 0, "marks_places": False, "max_frames": 48}
_HEARING = {"encoder_window": "padded"}
GPU: Mapping[str, Any] = MappingProxyType(
    {
        **_HUB,
        "hears": {**_HEARING, "audio_encoder": "openai/whisper-small"},
        "sees": {**_SIGHT, "vision_encoder": "google/siglip-base-patch16-384"},
        "language_model": "Qwen/Qwen2.5-0.5B-Instruct",
        "num_samples": 50_000,
        "steps": 30_000,
        "batch_tokens": 16_384,
    }
)
PAPER: Mapping[str, Any] = MappingProxyType(
    {
        **_HUB,
        "hears": {**_HEARING, "audio_encoder": "openai/whisper-large-v3"},
        "sees": {**_SIGHT, "vision_encoder": "google/siglip-so400m-patch14-384", "max_tiles": 4},
        "language_model": "Qwen/Qwen2.5-7B-Instruct",
        "num_samples": 600_000,
        "steps": 100_000,
        "batch_tokens": 131_072,
        "packed": True,
    }
)
SMOKE: Mapping[str, Any] = MappingProxyType(
    {
        "pretraining_steps": 60,
        "num_samples": 24,
        "num_test": 8,
        "num_between": 2,
        "steps": 12,
        "batch_tokens": 600,
        "warmup_steps": 1,
        "checkpoint_every": 0,
    }
)
GOLDEN: Mapping[str, Any] = MappingProxyType({**SMOKE, "steps": 14})


def rungs(cpu: Mapping[str, Any], **changes: Any) -> tuple[Rung, ...]:
    """The rungs of a study of the whole model; `changes` are those of the rungs beyond the small one."""
    return (
        Rung(name="cpu", description=CPU, changes=cpu),
        Rung(
            name="gpu",
            description="one GPU: Whisper-small, SigLIP-base and Qwen2.5-0.5B, LibriSpeech, LLaVA and ShareGPT4Video, "
            "questions said by Kokoro; not the paper's scale",
            workers=1,
            changes={**GPU, **changes},
        ),
        Rung(
            name="paper",
            description="the paper's encoders and a 7B language model; its data, steps and shares are not found, so "
            "these are ours",
            workers=1,
            changes={**PAPER, **changes},
        ),
        Rung(
            name="smoke",
            description="the whole path in minutes, trained for a few steps: its numbers say nothing",
            recorded=False,
            changes={**cpu, **SMOKE},
        ),
    )
