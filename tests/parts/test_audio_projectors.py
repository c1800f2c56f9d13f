import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lab.errors import LabError
from lab.parts.audio_projectors import AUDIO_PROJECTORS, AudioProjector, build_audio_projector

D = 12
OUTPUT = 10
RATES = (1, 2, 3, 8, 32)
# For every rate: one window, a window and a frame, two windows less a frame, and something longer.
LENGTHS = {rate: [rate, rate + 1, max(rate, 2 * rate - 1), 3 * rate + rate // 2] for rate in RATES}


def build(name: str, rate: int, *, hidden_size: int = D, output_size: int = OUTPUT, **options: int) -> AudioProjector:
    if name == "conv_gmlp_budget":
        window = rate * hidden_size
        options.setdefault("parameter_budget", 2 * window + (window + 1) * output_size + 3 * window * 7)
    sizes = {"hidden_size": hidden_size, "output_size": output_size, "downsample_rate": rate}
    return build_audio_projector(name, **sizes, **options)


def batch_of(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(lengths), max(lengths), D, generator=generator), torch.tensor(lengths)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


every_projector = pytest.mark.parametrize("name", AUDIO_PROJECTORS)
every_rate = pytest.mark.parametrize("rate", RATES)


# The contract.


@every_projector
@every_rate
def test_shape_equals_output_length(name: str, rate: int) -> None:
    projector = build(name, rate)
    features, lengths = batch_of(LENGTHS[rate])
    tokens, token_lengths = projector(features, lengths)
    assert tokens.shape == (len(lengths), projector.output_length(features.shape[1]), OUTPUT)
    assert token_lengths.tolist() == [math.ceil(length / rate) for length in LENGTHS[rate]]
    assert token_lengths.tolist() == [projector.output_length(length) for length in LENGTHS[rate]]


@every_projector
@every_rate
def test_tokens_past_an_utterances_own_are_zero(name: str, rate: int) -> None:
    tokens, token_lengths = build(name, rate)(*batch_of(LENGTHS[rate]))
    for row, length in zip(tokens, token_lengths.tolist(), strict=True):
        assert not row[length:].any()
        assert row[:length].any(dim=1).all()


@every_projector
@every_rate
def test_gradients_reach_every_parameter(name: str, rate: int) -> None:
    projector = build(name, rate)
    tokens, _ = projector(*batch_of(LENGTHS[rate]))
    (tokens * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for key, parameter in projector.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        # A softmax over the one frame of a window of one is 1, whatever the query and the key are.
        if not (name == "q_former" and rate == 1 and ("q_proj" in key or "k_proj" in key)):
            assert parameter.grad.any(), key


@every_projector
def test_one_seed_repeats_exactly(name: str) -> None:
    outputs = []
    for _ in range(2):
        torch.manual_seed(7)
        outputs.append(build(name, 3)(*batch_of([10, 4]))[0])
    assert torch.equal(*outputs)


@every_projector
@every_rate
def test_padding_frames_do_not_change_valid_outputs(name: str, rate: int) -> None:
    projector = build(name, rate)
    features, lengths = batch_of(LENGTHS[rate])
    expected, token_lengths = projector(features, lengths)
    for filling in (1e4, math.nan):
        dirty = F.pad(features, (0, 0, 0, 5), value=filling)
        for row, length in zip(dirty, lengths.tolist(), strict=True):
            row[length:] = filling
        tokens, _ = projector(dirty, lengths)
        torch.testing.assert_close(tokens[:, : expected.shape[1]], expected)
    for index, (length, num_tokens) in enumerate(zip(lengths.tolist(), token_lengths.tolist(), strict=True)):
        alone, _ = projector(features[index : index + 1, :length], lengths[index : index + 1])
        torch.testing.assert_close(alone[0], expected[index, :num_tokens], rtol=1e-5, atol=1e-6)


@every_projector
def test_padding_frames_get_no_gradient(name: str) -> None:
    features, lengths = batch_of([7, 3])
    features.requires_grad_()
    tokens, _ = build(name, 2)(features, lengths)
    (tokens * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert features.grad is not None
    assert not features.grad[1, 3:].any()
    assert features.grad[0].any(dim=1).all()
    assert features.grad[1, :3].any(dim=1).all()


@every_projector
def test_a_window_sees_its_own_frames_only(name: str) -> None:
    projector = build(name, 3)
    features, lengths = batch_of([12])
    before, _ = projector(features, lengths)
    features[0, 3:6] += 1
    after, _ = projector(features, lengths)
    assert (before != after).any(dim=2)[0].tolist() == [False, True, False, False]


@every_projector
@every_rate
def test_flops_equal_those_that_pytorch_counts(name: str, rate: int) -> None:
    projector = build(name, rate)
    frames_per_second = 96  # a multiple of every rate, so that one second is whole windows
    features, lengths = batch_of([frames_per_second])
    with FlopCounterMode(display=False) as counter:
        projector(features, lengths)
    assert projector.flops_per_audio_second(frames_per_second) == counter.get_total_flops()


@every_projector
def test_bfloat16_features_are_projected(name: str) -> None:
    features, lengths = batch_of([7, 3])
    tokens, _ = build(name, 2).bfloat16()(features.bfloat16(), lengths)
    assert tokens.dtype == torch.bfloat16
    assert tokens.isfinite().all()


@every_projector
@pytest.mark.parametrize("rate", [0, 33, -1, 2.0, True])
def test_a_rate_outside_1_to_32_is_refused(name: str, rate: int) -> None:
    with pytest.raises(LabError, match=rf"downsample_rate is {rate}; expected a whole number from 1 to 32"):
        build_audio_projector(
            name,
            hidden_size=D,
            output_size=OUTPUT,
            downsample_rate=rate,
            **({"parameter_budget": 10**6} if name == "conv_gmlp_budget" else {}),
        )


@every_projector
def test_a_rate_larger_than_the_utterance_is_refused(name: str) -> None:
    projector = build(name, 8)
    with pytest.raises(LabError, match="downsample_rate 8 is larger than an utterance of 5 encoder frames"):
        projector(*batch_of([16, 5]))
    with pytest.raises(LabError, match="downsample_rate 8 is larger than an utterance of 0 encoder frames"):
        projector.output_length(0)


def test_a_width_below_1_is_refused() -> None:
    with pytest.raises(LabError, match="output_size is 0; expected at least 1"):
        build("mean_pool_mlp", 2, output_size=0)


# Conv-GMLP against the convolutions of the paper.


class ConvolutionReference(nn.Module):
    """Section 2 of the project's notes on the paper, word by word, with nn.Conv1d; one utterance at a time."""

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.rate = rate
        width = rate * D
        self.gate = nn.Conv1d(D, width, rate, stride=rate, bias=False)
        self.up = nn.Conv1d(D, width, rate, stride=rate, bias=False)
        self.down = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, OUTPUT)

    def forward(self, frames: Tensor) -> Tensor:
        frames = F.pad(frames, (0, 0, 0, -len(frames) % self.rate))
        channels_first = frames.T[None]
        gate, up = self.gate(channels_first)[0].T, self.up(channels_first)[0].T
        shortcut = torch.stack([torch.cat(list(window)) for window in frames.split(self.rate)])
        return self.output(self.norm(self.down(F.silu(gate) * up) + shortcut))


def as_matrix(convolution: nn.Conv1d, weight: Tensor) -> Tensor:
    """A convolution's [out, channels, kernel] as the matrix on frames laid side by side."""
    return weight.permute(0, 2, 1).reshape(convolution.out_channels, -1)


@every_rate
def test_conv_gmlp_equals_strided_convolutions_forward_and_gradients(rate: int) -> None:
    torch.manual_seed(0)
    reference, projector = ConvolutionReference(rate).double(), build("conv_gmlp", rate).double()
    pairs = [
        (reference.gate, projector.block.gate_proj),
        (reference.up, projector.block.up_proj),
        (reference.down, projector.block.down_proj),
        (reference.norm, projector.block.norm),
        (reference.output, projector.output_proj),
    ]
    with torch.no_grad():
        for theirs, ours in pairs:
            weight = as_matrix(theirs, theirs.weight) if isinstance(theirs, nn.Conv1d) else theirs.weight
            ours.weight.copy_(weight)
            if ours.bias is not None:
                ours.bias.copy_(theirs.bias.normal_())
    features, lengths = batch_of(LENGTHS[rate])
    features = features.double().requires_grad_()
    twin = features.detach().clone().requires_grad_()

    tokens, token_lengths = projector(features, lengths)
    expected = [reference(row[:length]) for row, length in zip(twin, lengths.tolist(), strict=True)]
    for row, count, wanted in zip(tokens, token_lengths.tolist(), expected, strict=True):
        torch.testing.assert_close(row[:count], wanted)

    tokens.square().sum().backward()
    torch.cat(expected).square().sum().backward()
    torch.testing.assert_close(features.grad, twin.grad)
    for theirs, ours in pairs:
        grad = theirs.weight.grad
        torch.testing.assert_close(ours.weight.grad, as_matrix(theirs, grad) if isinstance(theirs, nn.Conv1d) else grad)
        if ours.bias is not None:
            torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


@pytest.mark.parametrize(("rate", "millions"), [(2, 19.7), (4, 78.7), (8, 314.6)])
def test_conv_gmlp_block_has_the_papers_parameter_count(rate: int, millions: float) -> None:
    with torch.device("meta"):
        projector = build("conv_gmlp", rate, hidden_size=1280, output_size=3584)
    count = num_parameters(projector.block)
    assert count == 3 * (rate * 1280) ** 2 + 2 * rate * 1280
    assert round(count / 1e6, 1) == millions


def test_thirty_seconds_at_the_papers_rates() -> None:
    # 1500 frames; the paper's 187 at n = 8 drops half a window, which right-padding keeps.
    assert [build("conv_gmlp", rate).output_length(1500) for rate in (2, 4, 8)] == [750, 375, 188]


@every_projector
@every_rate
def test_a_dropped_last_window_leaves_the_other_tokens_as_they_are(name: str, rate: int) -> None:
    torch.manual_seed(0)
    padded = build(name, rate).double()
    dropped = build(name, rate, last_window="dropped").double()
    dropped.load_state_dict(padded.state_dict())
    features, lengths = batch_of(LENGTHS[rate])
    tokens, counts = dropped(features.double(), lengths)
    assert counts.tolist() == [length // rate for length in LENGTHS[rate]]
    assert tokens.shape[1] == features.shape[1] // rate == dropped.output_length(features.shape[1])
    for own, before, count in zip(tokens, padded(features.double(), lengths)[0], counts.tolist(), strict=True):
        torch.testing.assert_close(own[:count], before[:count])
        assert not own[count:].any()


def test_thirty_seconds_of_the_papers_successor() -> None:
    counts = [build("conv_gmlp", rate, last_window="dropped").output_length(1500) for rate in (2, 4, 8)]
    assert counts == [750, 375, 187]


def test_an_unknown_last_window_lists_the_choices() -> None:
    with pytest.raises(LabError, match=r"unknown last_window 'cut'.*choose one of: dropped, padded"):
        build("conv_gmlp", 2, last_window="cut")


def test_conv_gmlp_starts_from_normal_weights_of_std_0_02() -> None:
    torch.manual_seed(0)
    projector = build("conv_gmlp", 4, hidden_size=64, output_size=128)
    for linear in (projector.block.gate_proj, projector.block.up_proj, projector.block.down_proj):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert linear.weight.mean().item() == pytest.approx(0, abs=5e-4)
    assert projector.block.norm.weight.eq(1).all()
    assert projector.block.norm.bias.eq(0).all()


# Capacity controls.


@pytest.mark.parametrize("rate", [1, 2, 4, 8])
def test_mean_pool_gmlp_has_conv_gmlps_parameter_count(rate: int) -> None:
    with torch.device("meta"):
        pooled, conv = (build(name, rate, hidden_size=384, output_size=192) for name in ("mean_pool_gmlp", "conv_gmlp"))
    assert num_parameters(pooled) == pytest.approx(num_parameters(conv), rel=0.005)
    # The nearest width: one more or one fewer (3 * 384 parameters) would not come closer.
    assert abs(num_parameters(pooled) - num_parameters(conv)) <= 3 * 384 / 2


@pytest.mark.parametrize("budget", [605_376, 1_918_656, 5_000_000])
@pytest.mark.parametrize("rate", [2, 8])
def test_conv_gmlp_budget_comes_nearest_to_the_budget_from_below(rate: int, budget: int) -> None:
    with torch.device("meta"):
        projector = build("conv_gmlp_budget", rate, hidden_size=384, output_size=192, parameter_budget=budget)
    assert num_parameters(projector) <= budget < num_parameters(projector) + 3 * rate * 384


def test_a_budget_of_conv_gmlps_own_size_is_conv_gmlp() -> None:
    budget = num_parameters(build("conv_gmlp", 4))
    assert build("conv_gmlp_budget", 4, parameter_budget=budget).intermediate_size == 4 * D


def test_a_budget_too_small_for_width_1_is_refused_with_the_least_that_would_do() -> None:
    least = 2 * 24 + 25 * OUTPUT + 3 * 24
    assert build("conv_gmlp_budget", 2, parameter_budget=least).intermediate_size == 1
    with pytest.raises(LabError, match=f"parameter_budget {least - 1} is too small .* expected at least {least}"):
        build("conv_gmlp_budget", 2, parameter_budget=least - 1)
    with pytest.raises(LabError, match="parameter_budget 10 is too small for mean_pool_gmlp"):
        build("mean_pool_gmlp", 2, parameter_budget=10)


# The others, against a slow version.


def test_mean_pooling_divides_the_last_window_by_its_real_frames() -> None:
    projector = build("mean_pool_mlp", 3)
    features, lengths = batch_of([7])
    windows = torch.stack([features[0, 0:3].mean(0), features[0, 3:6].mean(0), features[0, 6]])
    torch.testing.assert_close(projector(features, lengths)[0][0], projector.mlp(windows))


def test_conv1d_mlp_equals_a_convolution() -> None:
    projector = build("conv1d_mlp", 3)
    convolution = nn.Conv1d(D, D, 3, stride=3)
    with torch.no_grad():
        projector.conv_proj.weight.copy_(as_matrix(convolution, convolution.weight))
        projector.conv_proj.bias.copy_(convolution.bias)
    features, lengths = batch_of([9])
    expected = projector.mlp(F.relu(convolution(features.transpose(1, 2)).transpose(1, 2)))
    torch.testing.assert_close(projector(features, lengths)[0], expected)


def test_frame_concat_mlp_equals_ultravoxs_formula() -> None:
    projector = build("frame_concat_mlp", 2)
    features, lengths = batch_of([6])
    stacked = features.view(3, 2 * D)
    normed = 0.4 * stacked / (stacked.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    up, gate = (normed @ projector.gate_up_proj.weight.T).split(2 * D, dim=1)
    hidden = (gate * gate.sigmoid() * up) @ projector.down_proj.weight.T
    expected = 0.4 * hidden / (hidden.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(projector(features, lengths)[0][0], expected)


def test_q_former_attention_equals_a_loop_over_frames() -> None:
    projector = build("q_former", 3)
    projector.layers = projector.layers[:1]
    layer = projector.layers[0]
    layer.num_attention_heads = 2
    features, lengths = batch_of([5])
    query = projector.queries[0]
    for window, frames in enumerate((features[0, 0:3], features[0, 3:5])):
        normed = projector.frames_norm(frames)
        keys, values, asked = layer.k_proj(normed), layer.v_proj(normed), layer.q_proj(query)
        mixed = []
        for head in (slice(0, 6), slice(6, 12)):
            weights = torch.softmax(torch.stack([asked[head] @ key[head] / 6**0.5 for key in keys]), dim=0)
            mixed.append(sum(weight * value[head] for weight, value in zip(weights, values, strict=True)))
        hidden = layer.attention_norm(query + layer.o_proj(torch.cat(mixed)))
        hidden = layer.feed_forward_norm(hidden + layer.feed_forward(hidden))
        torch.testing.assert_close(projector(features, lengths)[0][0, window], projector.output_proj(hidden))


# Building by name.


def test_an_unknown_projector_lists_the_choices() -> None:
    with pytest.raises(LabError, match=r"unknown audio projector 'conv_glmp' \(did you mean 'conv_gmlp'\?\).*q_former"):
        build_audio_projector("conv_glmp")


def test_an_unknown_option_lists_the_projectors_options() -> None:
    with pytest.raises(LabError, match=r"'rate'.*choose one of: downsample_rate, hidden_size, output_size"):
        build_audio_projector("mean_pool_mlp", hidden_size=D, output_size=OUTPUT, rate=2)


def test_a_missing_option_is_named() -> None:
    with pytest.raises(LabError, match="audio projector 'conv_gmlp_budget' also needs: parameter_budget"):
        build_audio_projector("conv_gmlp_budget", hidden_size=D, output_size=OUTPUT, downsample_rate=2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("conv_gmlp", {"intermediate_size": 0}, "intermediate_size is 0; expected at least 1"),
        ("q_former", {"hidden_size": 200}, "width 200 does not divide by 3 attention heads"),
    ],
)
def test_an_option_out_of_range_is_refused(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(LabError, match=message):
        build(name, 2, **options)
