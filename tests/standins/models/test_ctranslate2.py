import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from lab.errors import LabError
from standins.models.packaged_whispers import load_ctranslate2_whisper, read_ctranslate2

CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def variable(name: str, array: np.ndarray, code: int | None = None) -> bytes:
    head = string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
    code = CODES[array.dtype.name] if code is None else code
    return head + struct.pack("<BI", code, array.nbytes) + array.tobytes()


def file_of(variables: dict[str, np.ndarray], aliases: dict[str, str] | None = None) -> bytes:
    """The format as `standins.models.packaged_whispers` states it, written out independently of the reader."""
    aliases = aliases or {}
    head = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, len(variables))
    body = b"".join(variable(name, array) for name, array in variables.items())
    tail = struct.pack("<I", len(aliases)) + b"".join(string(a) + string(v) for a, v in aliases.items())
    return head + body + tail


def tiny_whisper() -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=11,
        num_mel_bins=4,
        d_model=8,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=12,
        decoder_ffn_dim=20,
        max_source_positions=6,
        max_target_positions=5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    whisper = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in whisper.parameters():
            # Random everywhere, biases and norms too, and exact in float16.
            parameter.copy_(torch.randn(parameter.shape).half().float())
    return whisper


def to_ctranslate2(whisper: WhisperForConditionalGeneration) -> dict[str, np.ndarray]:
    """What CTranslate2's converter makes of a Whisper: stacked projections, zero key biases, float16."""
    state = {name: tensor.detach() for name, tensor in whisper.model.state_dict().items()}
    variables: dict[str, np.ndarray] = {}

    def put(name: str, tensor: torch.Tensor) -> None:
        variables[name] = tensor.half().numpy()

    def norm(target: str, source: str) -> None:
        put(f"{target}/gamma", state[f"{source}.weight"])
        put(f"{target}/beta", state[f"{source}.bias"])

    def linear(target: str, *sources: str) -> None:
        weights = [state[f"{source}.weight"] for source in sources]
        put(f"{target}/weight", torch.cat(weights))
        biases = [state.get(f"{s}.bias", torch.zeros(len(w))) for s, w in zip(sources, weights, strict=True)]
        put(f"{target}/bias", torch.cat(biases))

    for side, heads, layers in (("encoder", 2, 2), ("decoder", 4, 1)):
        variables[f"{side}/num_heads"] = np.array(heads, dtype=np.int16)
        variables[f"{side}/pre_norm"] = np.array(1, dtype=np.int8)
        put(f"{side}/position_encodings/encodings", state[f"{side}.embed_positions.weight"])
        norm(f"{side}/layer_norm", f"{side}.layer_norm")
        for index in range(layers):
            target, source = f"{side}/layer_{index}", f"{side}.layers.{index}"
            norm(f"{target}/self_attention/layer_norm", f"{source}.self_attn_layer_norm")
            linear(f"{target}/self_attention/linear_0", *(f"{source}.self_attn.{x}_proj" for x in "qkv"))
            linear(f"{target}/self_attention/linear_1", f"{source}.self_attn.out_proj")
            if side == "decoder":
                norm(f"{target}/attention/layer_norm", f"{source}.encoder_attn_layer_norm")
                linear(f"{target}/attention/linear_0", f"{source}.encoder_attn.q_proj")
                linear(f"{target}/attention/linear_1", *(f"{source}.encoder_attn.{x}_proj" for x in "kv"))
                linear(f"{target}/attention/linear_2", f"{source}.encoder_attn.out_proj")
            norm(f"{target}/ffn/layer_norm", f"{source}.final_layer_norm")
            linear(f"{target}/ffn/linear_0", f"{source}.fc1")
            linear(f"{target}/ffn/linear_1", f"{source}.fc2")
    for convolution in ("conv1", "conv2"):
        linear(f"encoder/{convolution}", f"encoder.{convolution}")
    put("decoder/embeddings/weight", state["decoder.embed_tokens.weight"])
    return variables


ALIASES = {"decoder/projection/weight": "decoder/embeddings/weight"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "model.bin"
        path.write_bytes(data)
        return path

    return write


def test_a_whisper_comes_back_equal(write: Callable[[bytes], Path]) -> None:
    whisper = tiny_whisper()
    read = load_ctranslate2_whisper([write(file_of(to_ctranslate2(whisper), ALIASES))])
    assert not read.training
    wanted, got = whisper.state_dict(), read.state_dict()
    assert wanted.keys() == got.keys()
    for name in wanted:
        assert got[name].dtype == torch.float32
        assert torch.equal(wanted[name], got[name]), name
    for name in ("d_model", "num_mel_bins", "encoder_ffn_dim", "decoder_attention_heads", "max_source_positions"):
        assert getattr(read.config, name) == getattr(whisper.config, name)
    mels, tokens = torch.randn(1, 4, 12), torch.tensor([[1, 5, 3]])
    expected = whisper.eval()(input_features=mels, decoder_input_ids=tokens).logits
    torch.testing.assert_close(read(input_features=mels, decoder_input_ids=tokens).logits, expected)


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    data = file_of(to_ctranslate2(tiny_whisper()), ALIASES)
    parts = [tmp_path / "model.bin.part1", tmp_path / "model.bin.part2"]
    parts[0].write_bytes(data[:1001])
    parts[1].write_bytes(data[1001:])
    assert read_ctranslate2(parts).keys() == to_ctranslate2(tiny_whisper()).keys() | ALIASES.keys()


def test_every_dtype_and_rank_is_read(write: Callable[[bytes], Path]) -> None:
    variables = {
        name: np.arange(6).astype(name).reshape(shape)
        for name, shape in zip(CODES, [(6,), (2, 3), (1, 2, 3), (6, 1), (3, 2)], strict=True)
    }
    variables["scalar"] = np.array(5, dtype=np.int16)
    read = read_ctranslate2([write(file_of(variables, {"twin": "int8"}))])
    for name, array in variables.items():
        assert read[name].dtype == array.dtype
        assert read[name].tolist() == array.tolist()
    assert read["twin"].tolist() == variables["int8"].tolist()


def test_a_foreign_file_is_refused(write: Callable[[bytes], Path]) -> None:
    foreign = write(struct.pack("<I", 6) + string("TransformerSpec"))
    with pytest.raises(LabError, match=r"model\.bin is not a CTranslate2 .* \(6, 'TransformerSpec'\), expected"):
        read_ctranslate2([foreign])
