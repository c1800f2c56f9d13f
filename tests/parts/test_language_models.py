import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from lab.errors import LabError
from lab.parts.language_models import (
    CHARACTER_FILE,
    LANGUAGE_MODELS,
    CharacterCodec,
    SubwordCodec,
    load_language_model,
    weights_sha256,
)
from tests.parts.tiny_models import HIDDEN_SIZE, llama, qwen3

VOCABULARY = {"<eos>": 0, "<unk>": 1, "a": 2, "cat": 3, "sat": 4}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", **special)


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """A local folder as transformers writes one."""
    torch.manual_seed(0)
    folder = tmp_path / "tiny-llama"
    llama(len(VOCABULARY)).save_pretrained(folder)
    tokenizer(eos_token="<eos>").save_pretrained(folder)
    return folder


@pytest.fixture
def character_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "characters"
    qwen3(CharacterCodec(alphabet="ab ").vocab_size).save_pretrained(folder)
    (folder / CHARACTER_FILE).write_text(json.dumps({"alphabet": "ab ", "frames_per_token": 4}), encoding="utf-8")
    return folder


def test_characters_go_to_ids_and_back():
    codec = CharacterCodec(alphabet="abc ")
    assert codec.encode("a cab") == [0, 3, 2, 0, 1]
    assert (codec.start_ids, codec.end_id, codec.vocab_size) == ([4], 5, 6)
    assert codec.decode([4, 0, 3, 2, 0, 1, 5]) == "a cab"
    assert codec.encode("") == []


def test_character_outside_the_alphabet_is_named():
    with pytest.raises(LabError, match="'x' in 'a box' is not in the language model's alphabet 'abo '"):
        CharacterCodec(alphabet="abo ").encode("a box")


def test_subwords_start_behind_the_start_token_or_the_end_token_where_there_is_none():
    codec = SubwordCodec(tokenizer=tokenizer(eos_token="<eos>"))
    assert (codec.start_ids, codec.end_id, codec.vocab_size) == ([0], 0, 5)
    assert SubwordCodec(tokenizer=tokenizer(eos_token="<eos>", bos_token="a")).start_ids == [2]
    assert codec.encode("a cat sat") == [2, 3, 4]
    assert codec.decode([0, 2, 3, 4, 0]) == "a cat sat"


def test_tokenizer_without_an_end_token_is_refused():
    with pytest.raises(LabError, match="has no end token; choose a language model with one"):
        SubwordCodec(tokenizer=tokenizer())


def test_local_folder_of_transformers_loads_with_its_tokenizer(hub_folder):
    torch.manual_seed(0)
    expected = llama(len(VOCABULARY))
    loaded = load_language_model(str(hub_folder))
    assert loaded.name == str(hub_folder)
    assert loaded.hidden_size == HIDDEN_SIZE
    assert loaded.frames_per_token is None
    assert loaded.codec.encode("cat sat") == [3, 4]
    assert not loaded.model.training
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name])


def test_a_corrected_tokenizer_is_another_model_of_the_same_weights(hub_folder, character_folder):
    before = load_language_model(str(hub_folder))
    assert load_language_model(str(hub_folder)).sha256 == before.sha256 != weights_sha256(before.model)
    hashes = {before.sha256}
    changed = tokenizer(eos_token="<eos>", bos_token="a")
    for written in (changed, tokenizer(eos_token="<eos>")):
        written.chat_template = "{{ messages[0]['content'] }}" if written is not changed else None
        written.save_pretrained(hub_folder)
        hashes.add(load_language_model(str(hub_folder)).sha256)
    assert len(hashes) == 3
    spelt = load_language_model(str(character_folder)).sha256
    told = {"alphabet": "ba ", "frames_per_token": 4}
    (character_folder / CHARACTER_FILE).write_text(json.dumps(told), encoding="utf-8")
    assert load_language_model(str(character_folder)).sha256 != spelt


def test_precision_is_the_one_asked_for(hub_folder):
    assert load_language_model(str(hub_folder), dtype=torch.bfloat16).model.dtype == torch.bfloat16


def test_character_model_knows_its_alphabet_and_frames(character_folder):
    loaded = load_language_model("character", folder=character_folder)
    assert loaded.name == "character"
    assert loaded.codec.encode("b a") == [1, 2, 0]
    assert loaded.frames_per_token == 4
    assert loaded.hidden_size == HIDDEN_SIZE
    # Published results stand under the weights of those that have a name.
    assert loaded.sha256 == weights_sha256(loaded.model)


def test_gguf_weights_load_with_the_tokenizer_inside_them(monkeypatch, tmp_path, hub_folder):
    """transformers reads the file; what is ours is to find it, however deep its package unpacks it."""
    seen = []
    folder = tmp_path / "package"
    (folder / "llm" / "data").mkdir(parents=True)
    (folder / "llm" / "data" / "weights.gguf").write_bytes(b"GGUF")

    def from_pretrained(place: str, **options: object) -> object:
        seen.append((place, options))
        return tokenizer(eos_token="<eos>") if "dtype" not in options else llama(len(VOCABULARY))

    monkeypatch.setattr("lab.parts.language_models.AutoTokenizer.from_pretrained", from_pretrained)
    monkeypatch.setattr("lab.parts.language_models.AutoModelForCausalLM.from_pretrained", from_pretrained)
    load_language_model("smollm2_135m", folder=folder)
    assert [place for place, _ in seen] == [str(folder / "llm" / "data")] * 2
    assert [options["gguf_file"] for _, options in seen] == ["weights.gguf"] * 2


def test_package_without_its_weights_is_named(tmp_path):
    with pytest.raises(LabError, match=r"no \*\.gguf in .*: the package of language model 'smollm2_135m' has changed"):
        load_language_model("smollm2_135m", folder=tmp_path)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_named_model_without_its_folder_says_what_to_run(name):
    with pytest.raises(LabError, match=f"language model '{name}' needs the folder of its weights; run `lab prepare`"):
        load_language_model(name)


@pytest.mark.parametrize("name", ["no-such-organisation/no-such-model", "gibberish", "/no/such/folder", ""])
def test_name_that_nobody_has_lists_the_choices(name):
    with pytest.raises(LabError, match=f"cannot load language model '{name}': .+; expected one of smollm2_135m, "):
        load_language_model(name)


def test_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(LabError, match="cannot load"):
        load_language_model(str(tmp_path))


@pytest.mark.parametrize("fixture", ["hub_folder", "character_folder"])
def test_damaged_weights_are_refused(request, fixture):
    folder = request.getfixturevalue(fixture)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(LabError, match=r"cannot load .+: .+; expected one of"):
        load_language_model(str(folder))


@pytest.mark.parametrize("content", ["{", "{}"])
def test_damaged_alphabet_is_refused(character_folder, content):
    (character_folder / CHARACTER_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(LabError, match="cannot load language model 'character'"):
        load_language_model("character", folder=character_folder)


class Weights(torch.nn.Module):
    def __init__(self, **tensors: torch.Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def test_hash_covers_names_shapes_types_and_values_and_no_memory_layout():
    table = torch.arange(6.0).reshape(2, 3)
    first = weights_sha256(Weights(a=table, b=torch.tensor(1.0)))
    assert first == weights_sha256(Weights(b=torch.tensor(1.0), a=table.T.contiguous().T))
    others = [
        Weights(a=table + 1, b=torch.tensor(1.0)),
        Weights(a=table.reshape(3, 2), b=torch.tensor(1.0)),
        Weights(c=table, b=torch.tensor(1.0)),
        Weights(a=table.view(torch.int32), b=torch.tensor(1.0)),
    ]
    assert len({first, *map(weights_sha256, others)}) == 5
