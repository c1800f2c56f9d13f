import sys
import types

import pytest
import torch
from torch import Tensor

from lab.errors import LabError
from lab.parts.packed_attention import PACKED_ATTENTION, SampleBoundaries, choose_packed_attention

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
LENGTHS = (5, 1, 9, 2)
GPU = "cuda" if torch.cuda.is_available() else ""


def boundaries(lengths: tuple[int, ...] = LENGTHS, device: str = "cpu") -> SampleBoundaries:
    ends = [sum(lengths[:n]) for n in range(len(lengths) + 1)]
    return SampleBoundaries(lengths, torch.tensor(ends, dtype=torch.int32, device=device))


def inputs(heads: int = 4, kv_heads: int = 4, head_dim: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    tokens = sum(LENGTHS)
    return tuple(torch.randn(tokens, h, head_dim, generator=rng) for h in (heads, kv_heads, kv_heads))  # type: ignore


def slow(query: Tensor, key: Tensor, value: Tensor, lengths=LENGTHS, scale: float | None = None) -> Tensor:
    """Token by token and head by head."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    group = query.shape[1] // key.shape[1]
    out, first = torch.zeros_like(query), 0
    for length in lengths:
        for token in range(first, first + length):
            for head in range(query.shape[1]):
                seen = slice(first, token + 1)
                scores = (key[seen, head // group] @ query[token, head]) * scale
                out[token, head] = scores.softmax(0) @ value[seen, head // group]
        first += length
    return out


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("name", PACKED_ATTENTION)
def test_every_backend_attends_inside_a_sample_as_a_slow_reference_does(name, kv_heads, scale):
    if why := PACKED_ATTENTION[name].missing(CPU, torch.float32):
        pytest.skip(f"{name}: {why}")
    given = inputs(kv_heads=kv_heads)
    with torch.no_grad():
        found = PACKED_ATTENTION[name].attend(*given, boundaries(), scale, 0.0)
    torch.testing.assert_close(found, slow(*given, scale=scale), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("name", PACKED_ATTENTION)
def test_gradients_are_those_of_the_slow_reference(name, kv_heads):
    if why := PACKED_ATTENTION[name].missing(CPU, torch.float32):
        pytest.skip(f"{name}: {why}")
    given = [x.requires_grad_() for x in inputs(kv_heads=kv_heads)]
    weight = torch.randn_like(given[0])
    found = torch.autograd.grad((PACKED_ATTENTION[name].attend(*given, boundaries(), None, 0.0) * weight).sum(), given)
    expected = torch.autograd.grad((slow(*given) * weight).sum(), given)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("name", PACKED_ATTENTION)
def test_every_backend_on_a_gpu_gives_the_outputs_and_gradients_of_the_reference(name, kv_heads):
    if not GPU:
        pytest.skip("there is no GPU")
    if why := PACKED_ATTENTION[name].missing(CUDA, torch.bfloat16):
        pytest.skip(f"{name}: {why}")
    given = [x.to(GPU, torch.bfloat16).requires_grad_() for x in inputs(kv_heads=kv_heads)]
    where = boundaries(device=GPU)
    found, expected = (PACKED_ATTENTION[n].attend(*given, where, None, 0.0) for n in (name, "per_sample"))
    torch.testing.assert_close(found, expected, rtol=3e-2, atol=3e-2)
    gradients = [torch.autograd.grad(out.float().square().sum(), given, retain_graph=True) for out in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=5e-2, atol=5e-2)


def test_flash_attn_is_called_as_its_own_documentation_says(monkeypatch):
    def varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *, dropout_p, softmax_scale, causal):
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert causal
        assert max_seqlen_q == max_seqlen_k == 9
        assert dropout_p == 0.0
        return slow(q, k, v, cu_seqlens_q.diff().tolist(), softmax_scale)

    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_varlen_func=varlen))
    given = inputs(kv_heads=2)
    found = PACKED_ATTENTION["flash_attn"].attend(*given, boundaries(), 0.3, 0.0)
    torch.testing.assert_close(found, slow(*given, scale=0.3))


def test_torch_varlen_is_called_as_its_own_documentation_says(monkeypatch):
    from torch.nn.attention import varlen

    def varlen_attn(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
        assert cu_seq_q is cu_seq_k  # what cuDNN's causal kernel asks for
        assert cu_seq_q.dtype == torch.int32
        assert window_size == (-1, 0)
        assert enable_gqa
        assert max_q == max_k == 9
        return slow(q, k, v, cu_seq_q.diff().tolist(), scale)

    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)
    given = inputs(kv_heads=2)
    found = PACKED_ATTENTION["torch_varlen"].attend(*given, boundaries(), None, 0.0)
    torch.testing.assert_close(found, slow(*given))


def test_a_backend_without_dropout_refuses_it():
    with pytest.raises(LabError, match=r"attention backend 'torch_varlen' has no dropout, and the model has 0\.1"):
        PACKED_ATTENTION["torch_varlen"].attend(*inputs(), boundaries(), None, 0.1)


def test_dropout_drops():
    given = inputs()
    torch.manual_seed(0)
    assert not torch.equal(PACKED_ATTENTION["per_sample"].attend(*given, boundaries(), None, 0.5), slow(*given))


def test_auto_is_one_call_a_sample_on_a_cpu():
    assert choose_packed_attention("auto", device=CPU, dtype=torch.float32) == "per_sample"


def test_auto_on_a_gpu_is_the_first_kernel_that_the_machine_has(monkeypatch):
    found: dict[str, object] = {"torch.nn.attention.varlen": object()}
    monkeypatch.setattr("importlib.util.find_spec", found.get)
    assert choose_packed_attention("auto", device=CUDA, dtype=torch.bfloat16) == "torch_varlen"
    assert choose_packed_attention("auto", device=CUDA, dtype=torch.float32) == "per_sample"
    found["flash_attn"] = object()
    assert choose_packed_attention("auto", device=CUDA, dtype=torch.bfloat16) == "flash_attn"


def test_a_backend_that_cannot_run_says_why_and_what_can(monkeypatch):
    found: dict[str, object] = {"flash_attn": object(), "torch.nn.attention.varlen": object()}
    monkeypatch.setattr("importlib.util.find_spec", found.get)
    choices = "choose: auto, per_sample"
    for name, why in (
        ("flash_attn", "it has no kernel for cpu"),
        ("torch_varlen", "it has no kernel for cpu"),
    ):
        with pytest.raises(LabError, match=f"attention backend '{name}' cannot run here: {why}; {choices}"):
            choose_packed_attention(name, device=CPU, dtype=torch.bfloat16)
    with pytest.raises(LabError, match=r"no kernel for torch.float32, only for torch.float16 and torch.bfloat16"):
        choose_packed_attention("flash_attn", device=CUDA, dtype=torch.float32)
    found.clear()
    with pytest.raises(LabError, match="flash_attn is not installed"):
        choose_packed_attention("flash_attn", device=CUDA, dtype=torch.bfloat16)
    with pytest.raises(LabError, match=r"torch\.nn\.attention\.varlen is not installed"):
        choose_packed_attention("torch_varlen", device=CUDA, dtype=torch.bfloat16)
    with pytest.raises(LabError, match="unknown attention backend 'flash'"):
        choose_packed_attention("flash", device=CPU, dtype=torch.float32)
