import io

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from lab.data.fetch import packages
from lab.errors import LabError
from lab.training.named_parts import check_vision_encoder, open_vision_encoder
from standins.models.packaged_efficientnet import FILE, PACKAGE, with_timm_names
from tests.data.fakes import installed


def packaged_state(seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the package's names, in the shapes of the published table of EfficientNet-Lite0."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def convolution(name: str, out: int, into: int, size: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, into, size, size, generator=generator) / (into * size * size) ** 0.5

    def norm(name: str, width: int) -> None:
        for key in ("weight", "running_var"):
            state[f"{name}.{key}"] = torch.rand(width, generator=generator) + 0.5
        for key in ("bias", "running_mean"):
            state[f"{name}.{key}"] = 0.3 * torch.randn(width, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(1)

    convolution("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    for index, (into, out, size, _, expansion) in enumerate(published_blocks()):
        block, width = f"_blocks.{index}", into * expansion
        if expansion > 1:
            convolution(f"{block}._expand_conv", width, into, 1)
            norm(f"{block}._bn0", width)
        convolution(f"{block}._depthwise_conv", width, 1, size)
        norm(f"{block}._bn1", width)
        convolution(f"{block}._project_conv", out, width, 1)
        norm(f"{block}._bn2", out)
    convolution("_conv_head", 1280, 320, 1)
    norm("_bn1", 1280)
    state["_fc.weight"], state["_fc.bias"] = torch.zeros(1000, 1280), torch.zeros(1000)
    return state


def published_blocks() -> list[tuple[int, int, int, int, int]]:
    """EfficientNet's table (arXiv 1905.11946), B0 without squeeze-excite: in, out, kernel, stride, expansion."""
    blocks = []
    into = 32
    for count, size, stride, expansion, out in (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ):
        for index in range(count):
            blocks.append((into, out, size, stride if index == 0 else 1, expansion))
            into = out
    return blocks


def reference_features(state: dict[str, Tensor], pixels: Tensor, num_blocks: int) -> Tensor:
    """The network by hand, with TensorFlow's padding."""

    def convolve(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        size = weight.shape[-1]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + size - x.shape[-1], 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (state[f"{name}.{key}"][:, None, None] for key in keys)
        return (x - mean) / (variance + 1e-3).sqrt() * weight + bias

    x = F.relu6(norm(convolve(pixels, "_conv_stem", stride=2), "_bn0"))
    for index, (into, out, _, stride, expansion) in enumerate(published_blocks()[:num_blocks]):
        block, hidden = f"_blocks.{index}", x
        if expansion > 1:
            hidden = F.relu6(norm(convolve(hidden, f"{block}._expand_conv"), f"{block}._bn0"))
        depthwise = convolve(hidden, f"{block}._depthwise_conv", stride, groups=into * expansion)
        hidden = norm(convolve(F.relu6(norm(depthwise, f"{block}._bn1")), f"{block}._project_conv"), f"{block}._bn2")
        x = hidden + x if stride == 1 and into == out else hidden
    return x


def install(state: dict[str, Tensor]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    installed(PACKAGE, {f"inside/{FILE}": buffer.getvalue()})


@pytest.mark.parametrize(("stride", "num_blocks", "hidden_size"), [(0, 11, 112), (8, 5, 40), (32, 16, 320)])
def test_the_packaged_weights_give_the_published_network(stride: int, num_blocks: int, hidden_size: int) -> None:
    state = packaged_state()
    install(state)
    encoder = open_vision_encoder("efficientnet_lite0", stride=stride)
    assert (encoder.name, encoder.image_size, encoder.hidden_size) == ("efficientnet_lite0", 128, hidden_size)
    assert encoder.grid == (128 // (stride or 16),) * 2  # 8 x 8 by default
    batch = torch.randint(0, 256, (1, 128, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = reference_features(state, batch.permute(0, 3, 1, 2) / 127.5 - 1, num_blocks)
    torch.testing.assert_close(encoder(batch), expected.permute(0, 2, 3, 1), rtol=1e-3, atol=1e-3)


def test_every_name_of_the_package_is_one_of_timms_and_none_is_missing() -> None:
    state = packaged_state()
    renamed = with_timm_names(state)
    wanted = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert {key: value.shape for key, value in renamed.items()} == {key: value.shape for key, value in wanted.items()}


@pytest.mark.parametrize("name", ["_blocks.16._bn1.weight", "other.weight"])
def test_an_unknown_name_in_the_package_is_not_hidden(name: str) -> None:
    install({**packaged_state(), name: torch.zeros(1)})
    with pytest.raises(LabError, match=f"of timm model 'tf_efficientnet_lite0'.*Unexpected key.*{name}"):
        open_vision_encoder("efficientnet_lite0")


def test_missing_weights_and_towers_are_named() -> None:
    installed(PACKAGE, {"README": b""})
    with pytest.raises(LabError, match=r"should hold one file efficientnet-lite0-57934424\.pth, and has 0"):
        open_vision_encoder("efficientnet_lite0")
    with pytest.raises(LabError, match="'efficientnet_lite0' has no towers, so none named 'small'"):
        check_vision_encoder("efficientnet_lite0:small")
    assert PACKAGE in packages()
