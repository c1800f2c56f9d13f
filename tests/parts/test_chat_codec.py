from dataclasses import replace

from lab.parts.language_models import ChatCodec, SubwordCodec, as_chat_model
from tests.parts.test_language_models import tokenizer
from tests.parts.tiny_models import language_model

TEMPLATE = "{% for m in messages %}a {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}sat{% endif %}"


def test_a_chat_models_prompt_stands_in_its_template_and_nothing_more_before_the_answer():
    words = tokenizer(eos_token="<eos>")
    words.chat_template = TEMPLATE
    chat = as_chat_model(replace(language_model(), codec=SubwordCodec(tokenizer=words)))
    assert isinstance(chat.codec, ChatCodec)
    assert chat.codec.ask("cat cat") == [2, 3, 3, 4]
    assert chat.codec.ask("") == [2, 4]
    assert chat.codec.start_ids == []
    assert chat.codec.encode("cat") == [3]


def test_a_model_without_a_template_stays_as_it_is():
    plain = replace(language_model(), codec=SubwordCodec(tokenizer=tokenizer(eos_token="<eos>")))
    assert as_chat_model(plain) is plain
    characters = language_model()
    assert as_chat_model(characters) is characters
