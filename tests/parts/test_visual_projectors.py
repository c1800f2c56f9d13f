import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lab.errors import LabError
from lab.parts.visual_projectors import VISUAL_PROJECTORS, VisualProjector, build_visual_projector

D = 12
OUTPUT = 10
PADDINGS = ("none", "both", "columns")
REDUCING = ("mean_pool", "concat", "c_abstractor")
# Every projector, and the reducing ones under every padding.
CASES: list[tuple[str, dict[str, Any]]] = [("mlp", {})] + [(n, {"padding": p}) for n in REDUCING for p in PADDINGS]
GRIDS = [(1, 1), (1, 6), (2, 2), (3, 5), (4, 7), (8, 8), (27, 27)]


def build(name: str, hidden_size: int = D, output_size: int = OUTPUT, **options: Any) -> VisualProjector:
    return build_visual_projector(name, hidden_size=hidden_size, output_size=output_size, **options)


def features(rows: int, columns: int, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, rows, columns, D, generator=torch.Generator().manual_seed(seed))


def expected_grid(name: str, padding: str, rows: int, columns: int) -> tuple[int, int]:
    if name == "mlp":
        return rows, columns
    return {
        "none": (math.floor(rows / 2), math.floor(columns / 2)),
        "both": (math.ceil(rows / 2), math.ceil(columns / 2)),
        "columns": (math.floor(rows / 2), math.ceil(columns / 2)),
    }[padding]


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


every_case = pytest.mark.parametrize(("name", "options"), CASES)
every_grid = pytest.mark.parametrize("grid", GRIDS)


# The contract.


def test_the_cases_are_the_whole_dict() -> None:
    assert {name for name, _ in CASES} == set(VISUAL_PROJECTORS)


@every_case
@every_grid
def test_shape_equals_output_grid(name: str, options: dict[str, Any], grid: tuple[int, int]) -> None:
    projector, wanted = build(name, **options), expected_grid(name, options.get("padding", ""), *grid)
    if math.prod(wanted) == 0:
        with pytest.raises(LabError, match=f"a grid of {grid[0]} x {grid[1]} patches holds no window of 2 x 2"):
            projector.output_grid(*grid)
        with pytest.raises(LabError, match=f"with padding '{options['padding']}'; expected more patches"):
            projector(features(*grid))
        return
    assert projector.output_grid(*grid) == wanted
    assert projector(features(*grid)).shape == (2, math.prod(wanted), OUTPUT)


@every_case
@pytest.mark.parametrize("grid", [(2, 2), (3, 5)])
def test_gradients_reach_every_parameter(name: str, options: dict[str, Any], grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    projector = build(name, **options)
    tokens = projector(features(*grid))
    (tokens * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for key, parameter in projector.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", VISUAL_PROJECTORS)
def test_gradients_reach_every_parameter_from_a_single_patch(name: str) -> None:
    torch.manual_seed(0)
    projector = build(name, **({"padding": "both"} if name in REDUCING else {}))
    tokens = projector(features(1, 1))
    assert tokens.shape == (2, 1, OUTPUT)
    tokens.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in projector.parameters())


@every_case
def test_one_seed_repeats_exactly(name: str, options: dict[str, Any]) -> None:
    outputs = []
    for _ in range(2):
        torch.manual_seed(7)
        outputs.append(build(name, **options)(features(5, 4)))
    assert torch.equal(*outputs)


@every_case
def test_a_views_tokens_do_not_depend_on_its_batch(name: str, options: dict[str, Any]) -> None:
    projector = build(name, **options)
    together = projector(features(5, 4, batch=3))
    for index in range(3):
        alone = projector(features(5, 4, batch=3)[index : index + 1])
        torch.testing.assert_close(alone[0], together[index], rtol=1e-5, atol=1e-6)


@every_case
def test_bfloat16_features_are_projected(name: str, options: dict[str, Any]) -> None:
    tokens = build(name, **options).bfloat16()(features(5, 4).bfloat16())
    assert tokens.dtype == torch.bfloat16
    assert tokens.isfinite().all()


@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case[0] != "c_abstractor"])
def test_a_token_sees_its_own_patches_only(name: str, options: dict[str, Any]) -> None:
    projector, patches = build(name, **options), features(4, 6, batch=1)
    before = projector(patches)
    patches[0, 2, 3] += 1
    changed = (before != projector(patches)).any(dim=2)[0]
    # Patch (2, 3) is token 2 * 6 + 3 of 4 x 6, and lies in window (1, 1), token 1 * 3 + 1 of 2 x 3.
    assert changed.nonzero().flatten().tolist() == [15 if name == "mlp" else 4]


# What the paper's arithmetic allows.


@pytest.mark.parametrize("name", REDUCING)
def test_27_x_27_patches_become_169_or_196_or_the_papers_182(name: str) -> None:
    grids = {padding: build(name, padding=padding).output_grid(27, 27) for padding in PADDINGS}
    assert grids == {"none": (13, 13), "both": (14, 14), "columns": (13, 14)}
    assert math.prod(grids["columns"]) == math.floor(729 / 4) == 182
    assert build("mlp").output_grid(27, 27) == (27, 27)


@pytest.mark.parametrize("name", REDUCING)
def test_another_pool_size_gives_its_own_grid(name: str) -> None:
    projector = build(name, pool_size=4, padding="both")
    assert projector.output_grid(27, 8) == (7, 2)
    assert projector(features(27, 8)).shape == (2, 14, OUTPUT)
    assert build(name, pool_size=1).output_grid(3, 5) == (3, 5)


# Against slow versions.


def windows_of(grid: Tensor) -> list[list[Tensor]]:
    """The four patches of each 2x2 window of one view, row by row; a missing patch is its neighbour's copy."""
    rows, columns, _ = grid.shape
    return [
        [grid[min(2 * r + i, rows - 1), min(2 * c + j, columns - 1)] for i in range(2) for j in range(2)]
        for r in range(math.ceil(rows / 2))
        for c in range(math.ceil(columns / 2))
    ]


@pytest.mark.parametrize("grid", [(4, 6), (3, 5)])
def test_mean_pool_starts_as_the_mean_of_each_window(grid: tuple[int, int]) -> None:
    projector, patches = build("mean_pool", padding="both"), features(*grid, batch=1)
    means = torch.stack([torch.stack(window).mean(0) for window in windows_of(patches[0])])
    torch.testing.assert_close(projector(patches)[0], projector.mlp(means))


@pytest.mark.parametrize("grid", [(4, 6), (5, 7)])
def test_mean_pool_equals_a_strided_convolution(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    projector, convolution = build("mean_pool"), nn.Conv2d(D, D, 2, stride=2)
    with torch.no_grad():
        projector.conv_proj.weight.copy_(convolution.weight.permute(0, 2, 3, 1).reshape(D, -1))
        projector.conv_proj.bias.copy_(convolution.bias)
    patches = features(*grid)
    expected = projector.mlp(convolution(patches.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)).flatten(1, 2)
    torch.testing.assert_close(projector(patches), expected)


@pytest.mark.parametrize("grid", [(4, 6), (3, 5)])
def test_concat_joins_a_windows_patches_along_their_channels(grid: tuple[int, int]) -> None:
    projector, patches = build("concat", padding="both"), features(*grid, batch=1)
    joined = torch.stack([torch.cat(window) for window in windows_of(patches[0])])
    torch.testing.assert_close(projector(patches)[0], projector.mlp(joined))


def test_c_abstractors_pooling_is_the_mean_of_each_window_where_the_grid_divides() -> None:
    projector, patches = build("c_abstractor"), features(4, 6, batch=1)
    projector.before, projector.after = nn.Identity(), nn.Identity()
    means = torch.stack([torch.stack(window).mean(0) for window in windows_of(patches[0])])
    torch.testing.assert_close(projector(patches)[0], projector.mlp(means))


def test_c_abstractor_mixes_patches_beyond_its_windows() -> None:
    projector, patches = build("c_abstractor"), features(8, 8, batch=1)
    before = projector(patches)
    patches[0, 0, 0] += 1
    assert (before != projector(patches)).any(dim=2)[0].sum() > 1


# Parameters, by formula.


def two_layers(in_size: int, out: int) -> int:
    return (in_size + 1) * out + (out + 1) * out


def bottleneck(in_size: int, width: int) -> int:
    """1x1, depthwise 3x3, squeeze-excite of a quarter of the input, 1x1; each norm has two vectors; no conv biases."""
    squeezed = in_size // 4
    squeeze_excite = (width + 1) * squeezed + (squeezed + 1) * width
    shortcut = 0 if in_size == width else in_size * width + 2 * width
    return in_size * width + 9 * width + width * width + 3 * 2 * width + squeeze_excite + shortcut


@pytest.mark.parametrize(("d", "out"), [(12, 10), (1152, 3584)])
def test_parameters_follow_the_formula(d: int, out: int) -> None:
    with torch.device("meta"):
        counts = {name: num_parameters(build(name, d, out)) for name in VISUAL_PROJECTORS}
    assert counts == {
        "mlp": two_layers(d, out),
        "mean_pool": 4 * d * d + d + two_layers(d, out),
        "concat": two_layers(4 * d, out),
        "c_abstractor": 6 * bottleneck(d, d) + two_layers(d, out),
    }


# Building by name.


def test_an_unknown_projector_lists_the_choices() -> None:
    with pytest.raises(LabError, match=r"unknown visual projector 'meanpool' \(did you mean 'mean_pool'\?\).*c_abs"):
        build("meanpool")


def test_an_option_it_does_not_have_is_refused() -> None:
    with pytest.raises(LabError, match=r"'padding'.*choose one of: hidden_size, output_size"):
        build("mlp", padding="both")


def test_a_missing_option_is_named() -> None:
    with pytest.raises(LabError, match="visual projector 'concat' also needs: output_size"):
        build_visual_projector("concat", hidden_size=D)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlp", {"hidden_size": 0}, "hidden_size is 0; expected at least 1"),
        ("mean_pool", {"output_size": -1}, "output_size is -1; expected at least 1"),
        ("concat", {"pool_size": 0}, "pool_size is 0; expected at least 1"),
        ("mean_pool", {"padding": "rows"}, "unknown padding 'rows'; choose one of: none, both, columns"),
    ],
)
def test_an_option_out_of_range_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        build(name, **options)
