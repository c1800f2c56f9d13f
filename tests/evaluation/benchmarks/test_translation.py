import base64
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from lab.data.sample import Audio, Text
from lab.errors import LabError
from lab.evaluation.benchmarks import translation
from lab.evaluation.benchmarks.endpoints import Endpoint
from lab.evaluation.benchmarks.items import data_key, read_translations
from lab.evaluation.benchmarks.registry import BENCHMARKS
from lab.evaluation.benchmarks.translation import sentence_bleu, translation_scores
from tests.data.fakes import tone
from tests.evaluation.benchmarks.asked import asked
from tests.evaluation.benchmarks.fakes import silent
from tests.evaluation.benchmarks.judge_server import judge_server

SENTENCES = {
    "The cat sat on the mat.": "猫坐在垫子上。",
    "It is raining today.": "今天下雨。",
    "I read a good book.": "我读了一本好书。",
    "Where is the station?": "车站在哪里?",
}


def bleu_of(hypotheses: list[str], references: list[str], target: str = "en") -> float:
    return next(s.value for s in translation_scores(hypotheses, references, target=target)[0] if s.metric == "bleu")


def test_identical_sentences_score_100_and_nothing_in_common_0():
    scores, _ = translation_scores(list(SENTENCES), list(SENTENCES), target="en")
    assert {(s.metric, s.value, s.low, s.high, s.unit, s.num_items) for s in scores} == {
        ("bleu", 100.0, 100.0, 100.0, "points", 4),
        ("chrf", 100.0, 100.0, 100.0, "points", 4),
    }
    assert bleu_of(["", ""], ["a b c d", "e f g h"]) == 0.0
    assert sentence_bleu(["a b c d e", ""], ["a b c d e", "f"], target="en") == [pytest.approx(100.0), 0.0]


def test_a_worked_case():
    # One word of six differs, the fifth: 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 fours; as long as it.
    worked = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)
    assert bleu_of(["the cat sat on the mat"], ["the cat sat on a mat"]) == pytest.approx(worked)
    # A sentence that is right counts in the same sums (6, 5, 4 and 3 more of each): no mean of the sentences' own.
    pooled = 100 * (11 / 12 * 8 / 10 * 6 / 8 * 4 / 6) ** (1 / 4)
    both = (["the cat sat on the mat", "we go home by the sea"], ["the cat sat on a mat", "we go home by the sea"])
    assert bleu_of(*both) == pytest.approx(pooled)
    # "ab" for "ac": one character of two, and no pair of one; F of precision and recall 1/4 each is 1/4.
    scores, _ = translation_scores(["ab"], ["ac"], target="en")
    assert {s.metric: s.value for s in scores}["chrf"] == pytest.approx(25.0)


def test_one_sentence_has_no_interval():
    scores, signatures = translation_scores(["a b c d"], ["a b c d"], target="en")
    assert [(s.low, s.high) for s in scores] == [(None, None)] * 2
    assert "bs:" not in signatures["bleu_signature"]


def test_chinese_is_cut_into_its_characters():
    # The last of six differs: 5 of 6, 4 of 5, 3 of 4, 2 of 3.
    worked = 100 * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** (1 / 4)
    assert bleu_of(["你好世界很大"], ["你好世界很小"], "zh") == pytest.approx(worked)
    assert bleu_of(["你好 世界 很大"], ["你好世界很小"], "zh") == pytest.approx(worked)
    assert bleu_of(["你好世界很大"], ["你好世界很小"], "en") == 0.0
    assert sentence_bleu(["你好世界很大"], ["你好世界很小"], target="zh") == [pytest.approx(worked)]


def test_the_interval_holds_the_value_and_stays_on_the_scale():
    right = [f"this is sentence number {n} of some" for n in range(12)]
    wrong = ["that was another matter altogether then"] * 4
    for hypotheses in (right[:8] + wrong, right[:1] + wrong * 3, wrong * 3, right):
        references = right[: len(hypotheses)] + ["x y z w v u"] * (len(hypotheses) - len(right))
        for score in translation_scores(hypotheses, references, target="en")[0]:
            assert 0.0 <= score.low <= score.value <= score.high <= 100.0
    some = translation_scores(right[:8] + wrong, right, target="en")[0][0]
    assert some.high - some.low > 10


def test_resamples_without_a_single_match_have_an_interval_too():
    # Of two sentences one has nothing in common; a quarter of the resamples hold it twice.
    bleu, chrf = translation_scores(["好", "大"], ["好", "小"], target="zh")[0]
    assert bleu.low == 0.0
    assert (chrf.low, chrf.high) == (pytest.approx(0.0, abs=3.0), pytest.approx(100.0, abs=3.0))


def test_signatures_say_tokenizer_seed_and_version():
    _, signatures = translation_scores(["好", "大"], ["好", "小"], target="zh")
    assert signatures["bleu_signature"].startswith("nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:zh|smooth:exp|")
    assert re.fullmatch(
        r"nrefs:1\|bs:1000\|seed:12345\|case:mixed\|.*nc:6\|.*version:[\d.]+", signatures["chrf_signature"]
    )
    assert "|tok:13a|" in translation_scores(["a", "b"], ["a", "b"], target="de")[1]["bleu_signature"]


def test_unpaired_or_no_sentences_are_refused():
    for hypotheses, references in ([], []), (["a"], []):
        with pytest.raises(LabError, match=rf"{len(hypotheses)} translations for 0 references; expected one each"):
            translation_scores(hypotheses, references, target="en")


@pytest.fixture
def sentences(tmp_path: Path) -> str:
    path = tmp_path / "sentences.jsonl"
    lines = [{"id": f"s{n}", "source": en, "reference": zh} for n, (en, zh) in enumerate(SENTENCES.items())]
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return str(path)


def wav(number: int) -> bytes:
    """A tone of 0.2 s and a tenth more for each `number`, at 22.05 kHz."""
    kept = io.BytesIO()
    soundfile.write(kept, tone(0.2 + 0.1 * number, rate=22050), 22050, format="WAV")
    return kept.getvalue()


@pytest.fixture
def speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of the form of the hub's copies of CoVoST-2: Parquet with the bytes of the sound, in a configuration."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    root = tmp_path / "covost2"
    (root / "en_zh").mkdir(parents=True)
    rows = [
        {"id": f"c{n}", "audio": {"bytes": wav(n), "path": f"{n}.wav"}, "gt": zh, "source": "covost2_en_zh_test"}
        for n, zh in enumerate(SENTENCES.values())
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "en_zh" / "test-00000-of-00001.parquet")
    files = "- split: test\n    path: en_zh/test-*.parquet"
    (root / "README.md").write_text(f"---\nconfigs:\n- config_name: en_zh\n  data_files:\n  {files}\n---\n")
    return f"hub:{root}:en_zh:test"


def translating(messages: list[Any]) -> str:
    """All right, but for the last sentence, which stays as it is."""
    prompt = messages[-1]["content"]
    assert prompt.startswith("Translate into Chinese. Write the translation and nothing else.\n\n")
    source = prompt.partition("\n\n")[2]
    return source if source.startswith("Where") else SENTENCES[source]


def hearing(messages: list[Any]) -> str:
    """Tells the sentence by the length of the sound, which has to be 16 kHz mono WAV before the text."""
    sound, text = messages[-1]["content"]
    assert (sound["type"], sound["input_audio"]["format"], text["type"]) == ("input_audio", "wav", "text")
    assert text["text"] == "Translate the speech into Chinese. Write the translation and nothing else."
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["input_audio"]["data"])))
    assert (rate, samples.ndim) == (16000, 1)
    return list(SENTENCES.values())[round((len(samples) / rate - 0.2) / 0.1)]


def test_text_is_translated_by_an_endpoint_and_scored(sentences):
    options = {"data": sentences, "target": "zh"}
    seen = []
    with judge_server(answer=translating) as server:
        found = BENCHMARKS["translation"].evaluate(
            f"openai:m@{server.url}", options=options, limit=None, progress=lambda *step: seen.append(step)
        )
    assert seen[-1] == (4, 4)
    assert found.answers["id"].tolist() == ["s0", "s1", "s2", "s3"]
    assert found.answers["given"].tolist() == [*list(SENTENCES.values())[:3], "Where is the station?"]
    # Of the last one's five words and marks only "?" is right, of six; each longer match that is not there counts as
    # half, a quarter and an eighth of one (sacrebleu's smoothing).
    last = 100 * math.exp(1 - 6 / 5) * (1 / 5 * 1 / 2 / 4 * 1 / 4 / 3 * 1 / 8 / 2) ** (1 / 4)
    assert found.answers["score"].tolist() == [pytest.approx(100.0)] * 3 + [pytest.approx(last)]
    by_name = {score.metric: score for score in found.scores}
    assert 0 < by_name["bleu"].low < by_name["bleu"].value < 100
    assert found.settings["target"] == "zh"
    assert found.settings["prompt"] == "ours, 1"
    assert found.settings["tokenizer"] == "zh"
    assert "tok:zh" in found.settings["bleu_signature"]
    assert "version:" in found.settings["chrf_signature"]
    assert found.settings["data"].startswith("sentences.jsonl ")
    assert found.model_key == f"openai:m@{server.url}"


def test_speech_of_the_hubs_form_is_sent_as_sound(speech):
    benchmark = BENCHMARKS["covost2_en2zh"]
    with judge_server(answer=hearing) as server:
        found = benchmark.evaluate(f"openai:m@{server.url}", options={"data": speech}, limit=None, progress=silent)
        assert {score.metric: score.value for score in found.scores} == {"bleu": 100.0, "chrf": 100.0}
        assert found.answers["answer"].tolist() == list(SENTENCES.values())
        assert len(server.requests) == 4
    assert re.search(r":en_zh:test@folder [0-9a-f]{16}$", found.settings["data"])


def test_sounds_beside_a_file_are_found(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(0))
    (tmp_path / "set.jsonl").write_text(
        '{"audio": "a.wav", "translation": " 猫。 "}\n\n{"source": "dog", "gt": "狗"}\n'
    )
    one, other = read_translations(str(tmp_path / "set.jsonl"))
    assert (one.id, one.answer, one.content) == ("0", "猫。", (Audio(tmp_path / "a.wav"),))
    assert (other.id, other.answer, other.content) == ("1", "狗", (Text("dog"),))


def test_a_run_that_stopped_asks_for_what_is_left_only(sentences):
    options = {"data": sentences, "target": "zh"}
    benchmark, gone = BENCHMARKS["translation"], [False]

    def dying(messages: list[Any]) -> Any:
        said = translating(messages)
        return {"status": 401, "body": '{"error": {"message": "key"}}'} if gone[0] and said != "今天下雨。" else said

    gone[0] = True
    with judge_server(answer=dying) as server:
        model = f"openai:m@{server.url}"
        with pytest.raises(LabError, match="answers 401"):
            benchmark.evaluate(model, options=options, limit=None, progress=silent)
        gone[0] = False
        server.requests.clear()
        whole = benchmark.evaluate(model, options=options, limit=None, progress=silent)
        asked = [request["messages"][-1]["content"] for request in server.requests]
        assert len(asked) == 3
        assert not any("raining" in prompt for prompt in asked)
        sample = benchmark.evaluate(model, options=options, limit=2, progress=silent)
        assert benchmark.evaluate(model, options=options, limit=None, progress=silent).scores == whole.scores
        assert len(server.requests) == 3
    assert (len(sample.answers), sample.scores[0].num_items) == (2, 2)


@pytest.mark.timeout(60)
def test_a_failure_ends_it_though_requests_were_waiting():
    with judge_server(answer=lambda messages: {"status": 401, "body": '{"error": {"message": "key"}}'}) as server:
        endpoint = Endpoint(f"openai:m@{server.url}", max_new_tokens=4, num_parallel=1)
        with pytest.raises(LabError, match="answers 401"):
            list(endpoint.reply([asked(str(number)) for number in range(12)]))
    assert len(server.requests) < 12


def test_what_a_model_refuses_is_no_score(sentences):
    def refusing(messages: list[Any]) -> Any:
        long = "station" in messages[-1]["content"]
        return {"status": 400, "body": '{"error": {"message": "too long"}}'} if long else translating(messages)

    with (
        judge_server(answer=refusing) as server,
        pytest.raises(LabError, match=r"refused 1 of 4 .*'s3' \(400: .*too long"),
    ):
        BENCHMARKS["translation"].evaluate(
            f"openai:m@{server.url}", options={"data": sentences, "target": "zh"}, limit=None, progress=silent
        )


def test_another_target_or_data_is_another_evaluation(sentences):
    benchmark = BENCHMARKS["translation"]

    def key(**options: str) -> str:
        return benchmark.check("openai:m", options={"data": sentences, **options}).key(benchmark, None)

    keys = {key(target="zh"), key(target="en"), key(target="de")}
    Path(sentences).write_text('{"source": "a", "reference": "b"}')
    assert len(keys | {key(target="zh")}) == 4


def test_bad_input_is_refused_before_anything_is_asked(sentences, tmp_path, monkeypatch):
    text, spoken = BENCHMARKS["translation"], BENCHMARKS["covost2_zh2en"]
    for options, message in [
        ({}, "'translation' needs --option data=..., a JSONL"),
        ({"data": sentences}, "'translation' needs --option target=..., the language"),
        ({"data": sentences, "target": "xx"}, "unknown target language 'xx'; choose one of: de, en"),
        (
            {"data": sentences, "targt": "zh"},
            r"unknown option of benchmark 'translation' 'targt' \(did you mean 'target'",
        ),
        ({"data": "trivia", "target": "zh"}, "data 'trivia' are no translations"),
        ({"data": "a.csv", "target": "zh"}, "data 'a.csv' is none of FILE.jsonl"),
        ({"data": str(tmp_path / "no.jsonl"), "target": "zh"}, r"no.jsonl cannot be read \(No such file"),
    ]:
        with pytest.raises(LabError, match=message):
            text.check("smollm2_135m", options=options)
    with pytest.raises(LabError, match=r"'covost2_zh2en' is speech, and 'smollm2_135m' .* openai:MODEL@URL"):
        spoken.check("smollm2_135m", options={})
    with pytest.raises(LabError, match=r"unknown model 'nobody'.*where text is asked for"):
        text.check("nobody", options={"data": sentences, "target": "zh"})
    with pytest.raises(LabError, match="limit is 0"):
        text.evaluate("smollm2_135m", options={"data": sentences, "target": "zh"}, limit=0, progress=silent)
    find: Callable[..., Any] = translation.importlib.util.find_spec
    monkeypatch.setattr(
        translation.importlib.util, "find_spec", lambda name, *a: None if name == "sacrebleu" else find(name, *a)
    )
    with pytest.raises(LabError, match="needs the package sacrebleu"):
        text.check("smollm2_135m", options={"data": sentences, "target": "zh"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"source": "a"}',
            r"translation 0 of .* needs 'source' or 'audio', and one of 'reference', .*; it has source",
        ),
        ('{"source": " ", "reference": "b"}', "translation 0 of"),
        ('{"gt": "b"}', "translation 0 of"),
        ('{"source": "a", "reference": "  "}', "translation 0 of"),
        (
            '{"audio": {"bytes": null, "path": null}, "gt": "b"}',
            "the audio of translation 0 of .* is neither a path nor",
        ),
        ("", "hold nothing to ask"),
        ("[1]", "line 1 of .* is no JSON object"),
    ],
)
def test_lines_that_are_no_translations_are_named(tmp_path, line, message):
    (tmp_path / "set.jsonl").write_text(line)
    with pytest.raises(LabError, match=message):
        read_translations(str(tmp_path / "set.jsonl"))


def test_a_data_set_of_the_hub_is_opened_at_its_one_split_or_the_named_one(speech, monkeypatch):
    assert len(read_translations(speech.removesuffix(":test"))) == 4
    with pytest.raises(LabError, match=r"unknown split of data set .*: 'dev'; choose one of: test"):
        read_translations(speech.replace(":test", ":dev"))
    with pytest.raises(LabError, match="cannot be opened"):
        read_translations(speech.replace(":en_zh:", ":nothing:"))

    class Broken:
        info = type("Info", (), {})()

        def __iter__(self) -> Any:
            raise OSError("the line is dead")

    monkeypatch.setattr("datasets.load_dataset", lambda *a, **o: {"test": Broken()})
    with pytest.raises(LabError, match=r"broke off at row 0: the line is dead; check the network"):
        read_translations(speech)
    with pytest.raises(LabError, match="data set 'owner/none' cannot be had from the Hugging Face hub"):
        data_key("hub:owner/none:c:test")
