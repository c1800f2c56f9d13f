"""Small image towers to pretrain, each a model with its pooling, and the folder that they are kept in.

Shapes: `batch height width` of square images, `hidden_size` of the pooled feature.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.utils.logging import disable_progress_bar

from lab.errors import choose
from lab.parts.vision_encoders import check_timm
from standins.models.kept_model import write_description

TIMM_FILE = "timm.json"
WEIGHTS_FILE = "model.safetensors"


class ImageTower(nn.Module, ABC):
    """Pixels to one pooled feature; the normalisation is inside."""

    model: Any
    mean: Tensor
    std: Tensor

    def __init__(self, *, model: nn.Module, image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model, self.image_size = model, image_size
        self.register_buffer("mean", torch.tensor(mean) * 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(std) * 255.0, persistent=False)
        was_training = model.training
        with torch.no_grad():
            black = torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8)
            self.hidden_size = int(self.eval()(black).shape[-1])
        self.train(was_training)

    def forward(self, pixels: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch hidden_size"]:
        """Pool each image into one vector; it is not of unit length."""
        normalised = ((pixels.float() - self.mean) / self.std).permute(0, 3, 1, 2).contiguous()
        return self._pooled(normalised)

    @abstractmethod
    def _pooled(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch hidden_size"]:
        """As `forward`, of pixels that are normalised."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the tower into a folder that exists."""


class SiglipTower(ImageTower):
    """A SigLIP vision model with its attention pooling; saved as transformers saves it."""

    def __init__(self, *, model: SiglipVisionModel) -> None:
        config: Any = model.config
        super().__init__(model=model, image_size=config.image_size, mean=[0.5] * 3, std=[0.5] * 3)

    def _pooled(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch hidden_size"]:
        pooled: Tensor = self.model(pixel_values=pixels).pooler_output
        return pooled

    def save(self, folder: Path) -> None:
        """Write what `SiglipVisionModel.from_pretrained` and an image processor read."""
        disable_progress_bar()
        self.model.save_pretrained(folder)
        side = {"height": self.image_size, "width": self.image_size}
        processor = {
            "image_processor_type": "SiglipImageProcessor",
            "do_resize": True,
            "size": side,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        }
        write_description(folder / "preprocessor_config.json", processor)


class TimmTower(ImageTower):
    """Any timm model without its classifier; saved as a state dict and, in `timm.json`, what it takes to build it."""

    def __init__(self, *, architecture: str, image_size: int) -> None:
        self.architecture = architecture
        model = _timm_model(architecture, image_size)
        config = resolve_model_data_config(model)
        self.normalisation = {"mean": list(config["mean"]), "std": list(config["std"])}
        super().__init__(model=model, image_size=image_size, **self.normalisation)

    def _pooled(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch hidden_size"]:
        pooled: Tensor = self.model(pixels)
        return pooled

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `timm.json`."""
        save_file({name: value.contiguous() for name, value in self.model.state_dict().items()}, folder / WEIGHTS_FILE)
        description = {"architecture": self.architecture, "image_size": self.image_size, **self.normalisation}
        write_description(folder / TIMM_FILE, description)


def _timm_model(architecture: str, image_size: int) -> nn.Module:
    check_timm(architecture)
    # A model that takes any size has no such option.
    fixed = getattr(timm.get_pretrained_cfg(architecture), "fixed_input_size", False)
    sized: dict[str, Any] = {"img_size": image_size} if fixed else {}
    model: nn.Module = timm.create_model(architecture, num_classes=0, **sized)
    return model


def siglip_tiny(image_size: int) -> SiglipTower:
    """SigLIP with 4 layers of width 128 and patches of 16 pixels, 1.1 million parameters."""
    return SiglipTower(
        model=SiglipVisionModel(
            SiglipVisionConfig(
                image_size=image_size,
                patch_size=16,
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=4,
            )
        )
    )


def build_image_tower(name: str, *, image_size: int, seed: int = 0) -> ImageTower:
    """Build an untrained tower, one of `VISION_TOWERS` or `timm:NAME`; one seed repeats its weights exactly.

    Raises:
        LabError: unknown name.
    """
    kind, _, architecture = name.partition(":")
    build = choose(VISION_TOWERS, kind, "image tower") if kind != "timm" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(image_size) if build else TimmTower(architecture=architecture, image_size=image_size)


# Besides, `timm:NAME` is any model of timm.
VISION_TOWERS: dict[str, Callable[[int], ImageTower]] = {"siglip_tiny": siglip_tiny}
