"""What the declarations of the vision studies share: the parameters of a cell and the columns of the table."""

from types import MappingProxyType
from typing import Any

from lab.study.ablation import Column

NOTEBOOK = "vision_language"

# At the cpu rung; a study changes what it needs in its own `base`.
BASE: MappingProxyType[str, Any] = MappingProxyType(
    {
        "curriculum": "staged",
        "images": "stills",
        "num_images": 2400,
        "videos": "scenes:8-12:2-4",
        "num_videos": 1800,
        "test_source": "",
        "num_test": 540,
        "measure_dev": False,
        "vision_encoder": "efficientnet_lite0",
        "image_size": 96,
        "stride": 16,
        "train_encoder": False,
        "frame_size": 96,
        "frames_per_second": 1.0,
        "max_frames": 8,
        "max_tiles": 1,
        "fit": "pad",
        "unpad": False,
        "newline": False,
        "projector": "mean_pool",
        "pool_size": 2,
        "marks_places": True,
        "video_projector_start": "afresh",
        "image_branch_steps": 0,
        "language_model": "character",
        "pretraining_steps": 5500,
        "train_language_model": True,
        "steps": 600,
        "first_share": 0.4,
        "image_share": 0.4,
        "batch_tokens": 2400,
        "learning_rate": 1e-3,
        "language_model_learning_rate": 5e-4,
        "encoder_learning_rate": 1e-3,
        "warmup_steps": 30,
        "weight_decay": 0.01,
        "checkpoint_every": 200,
        "precision": "auto",
        "device": "auto",
    }
)

ACCURACY = Column(
    metric="test_accuracy", label="test accuracy", unit="%", better="higher", scale=100, interval="error_rate"
)
COSTS = (
    Column(metric="test_loss", label="test loss", unit="nats a token", better="lower"),
    Column(metric="visual_tokens_per_question", label="visual tokens", unit="a question", better="lower"),
    Column(metric="lm_tokens", label="LM tokens in training", unit="M", better="lower", scale=1e-6),
    Column(metric="decoded_frames", label="frames in training", unit="thousands", better="lower", scale=1e-3),
    Column(metric="projector_parameters", label="projector size", unit="M parameters", better="lower", scale=1e-6),
    Column(metric="training_seconds", label="training", unit="s", better="lower"),
    Column(metric="peak_memory_bytes", label="peak memory", unit="GB", better="lower", scale=1e-9),
)
SECONDARY = "secondary: third-party reading notes that agree with the primary tables where both exist"
NOT_FOUND = "not found"
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
