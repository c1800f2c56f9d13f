from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from lab.data.sample import Image, Sample, Text
from lab.errors import LabError
from lab.evaluation.benchmarks.replies import Refused
from lab.evaluation.benchmarks.revisions import find_checkpoint
from lab.evaluation.benchmarks.text_models import LocalTextModel, open_text_model
from tests.evaluation.benchmarks.asked import asked
from tests.parts.tiny_models import llama
from tests.speech import write_language_model

WORDS = ("<eos>", "<unk>", "[user]", "[system]", "[answer]", "red", "blue", "green", "which", "is")
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[answer]"
ASKED = [
    asked("which is red"),
    Sample(id="2", content=(Text("green", "system"), Text("which is blue"))),
    asked("is is is blue green red which which"),
    asked("is"),
    asked("red blue"),
]


def saved(folder: Path, template: str | None) -> str:
    """A random Llama with a tokenizer of ten words, as transformers saves them."""
    torch.manual_seed(1)
    words = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    llama(len(WORDS)).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<eos>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder)


def opened(folder: str, *, max_new_tokens: int = 6, batch_size: int = 3) -> LocalTextModel:
    return LocalTextModel(find_checkpoint(folder, {}), max_new_tokens=max_new_tokens, batch_size=batch_size)


def by_hand(folder: str, prompt: str, max_new_tokens: int = 6) -> str:
    """The likeliest next word, one after the other, without batch, padding or cache."""
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids, said = tokenizer.encode(prompt), []
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            best = int(network(torch.tensor([ids])).logits[0, -1].argmax())
        if best == tokenizer.eos_token_id:
            break
        said.append(best)
        ids = [*ids, best]
    return str(tokenizer.decode(said, skip_special_tokens=True)).strip()


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_replies_are_greedy_in_the_models_own_template_and_no_neighbour_changes_them(tmp_path, template):
    folder = saved(tmp_path / "llama", template)

    def prompt(said: Sample) -> str:
        turns = [f"[{part.role}] {part.text}" if template else part.text for part in said.content]
        return " ".join([*turns, "[answer]"] if template else turns)

    expected = {place: by_hand(folder, prompt(said)) for place, said in enumerate(ASKED)}
    assert len(set(expected.values())) > 1
    assert dict(opened(folder).reply(ASKED)) == expected
    assert dict(opened(folder, batch_size=1).reply(ASKED)) == expected


def test_a_conversation_without_room_for_a_reply_is_refused_and_the_others_are_not(tmp_path):
    folder = saved(tmp_path / "llama", TEMPLATE)
    room = AutoModelForCausalLM.from_pretrained(folder).config.max_position_embeddings - 6
    fits, long = asked("is " * (room - 2)), asked("is " * (room - 1))  # and [user], [answer]
    found = dict(opened(folder).reply([long, fits, ASKED[0]]))
    assert found[0] == Refused(f"{room + 1} tokens of prompt, with room for {room}")
    assert isinstance(found[1], str)
    assert isinstance(found[2], str)


def test_pictures_and_models_of_characters_are_refused(tmp_path):
    model = opened(str(saved(tmp_path / "llama", None)))
    with pytest.raises(LabError, match=r"is asked about pictures, videos or sound; expected .* openai:MODEL@URL"):
        list(model.reply([ASKED[0], asked("what?", Image(b"png"))]))
    with pytest.raises(LabError, match="writes characters and has no tokenizer"):
        list(opened(write_language_model(tmp_path / "characters")).reply(ASKED[:1]))
    with pytest.raises(LabError, match="max_new_tokens is 0, expected at least 1"):
        open_text_model("smollm2_135m", max_new_tokens=0)


def test_the_key_says_weights_decoding_and_length(tmp_path):
    folder = saved(tmp_path / "llama", None)
    assert opened(folder).key == f"{find_checkpoint(folder, {}).key}, greedy, float32, chat template, 6 new tokens"
    assert opened(folder).key != opened(folder, max_new_tokens=7).key
