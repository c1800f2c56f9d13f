import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from lab.errors import LabError
from lab.evaluation.benchmarks import language
from lab.evaluation.benchmarks.language import leaves, manager_of, place_of_data
from lab.evaluation.benchmarks.registry import BENCHMARKS
from standins.instructions import mmlu
from tests.evaluation.benchmarks.fakes import silent
from tests.parts.tiny_models import llama

PROMPT = "The following are multiple choice questions with answers about Answer which of these is red blue green"
VOCABULARY = {word: place for place, word in enumerate(["<eos>", "<unk>", *"ABCD", *".:?()", *PROMPT.split()])}
FEW_SHOT = BENCHMARKS["mmlu_few_shot_questions"]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A random Llama with a tokenizer of words, as transformers saves them."""
    torch.manual_seed(0)
    words = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    folder = tmp_path / "llama"
    llama(len(VOCABULARY)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<eos>").save_pretrained(folder)
    return str(folder)


def question(number: int, subject: str = "astronomy") -> dict[str, object]:
    colours = ["red", "blue", "green", "which"]
    return {
        "id": f"{subject}-{number}",
        "subject": subject,
        "question": f"which of these is {colours[number % 4]} {colours[number // 4]}?",
        "choices": colours[number % 4 :] + colours[: number % 4],
        "answer": number % 4,
    }


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Ten questions in place of those of the package."""
    from datasets import Dataset

    made = [question(number) for number in range(10)]
    monkeypatch.setattr(mmlu, "few_shot_questions", lambda **_: {"test": Dataset.from_list(made)})
    return made


def likeliest(model: str, row: dict[str, object]) -> str:
    """The letter that the model finds most likely behind the prompt, by a plain forward pass."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    choices = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=True))
    text = f"The following are multiple choice questions (with answers) about {row['subject']}.\n\n"
    ids = tokenizer(f"{text}{row['question']}\n{choices}\nAnswer:", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = network(ids).logits[0, -1]
    return max("ABCD", key=lambda letter: float(logits[tokenizer.convert_tokens_to_ids(letter)]))


@pytest.mark.slow
def test_the_answer_is_the_likeliest_letter_of_a_plain_forward_pass(model, questions):
    seen: list[tuple[int, int]] = []
    found = FEW_SHOT.evaluate(
        model, options={"device": "cpu"}, limit=None, progress=lambda done, total: seen.append((done, total))
    )
    expected = [likeliest(model, row) for row in questions]
    assert found.answers["given"].tolist() == expected
    right = sum(letter == "ABCD"[int(str(row["answer"]))] for letter, row in zip(expected, questions, strict=True))
    (score,) = found.scores
    assert (score.metric, score.value, score.num_items) == ("accuracy", pytest.approx(right / 10), 10)
    assert seen[-1] == (10, 10)
    assert found.answers["asked"][0].endswith("Answer:")
    assert found.settings["precision"] == "float32"


@pytest.mark.slow
def test_a_run_that_was_stopped_asks_only_what_is_left(model, questions, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    forward: Callable[..., torch.Tensor] = HFLM._model_call
    calls: list[int] = []

    def counted(self, inps, **more):
        calls.append(len(inps))
        return forward(self, inps, **more)

    monkeypatch.setattr(HFLM, "_model_call", counted)

    def stop(done: int, total: int) -> None:
        if done == 5:  # four questions are answered whole, and the first choice of the fifth
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FEW_SHOT.evaluate(model, options={"device": "cpu"}, limit=None, progress=stop)
    before = sum(calls)
    assert 5 <= before < 10
    calls.clear()
    whole = FEW_SHOT.evaluate(model, options={"device": "cpu"}, limit=None, progress=silent)
    assert sum(calls) == 10 - 4  # the fifth lacks three of its choices
    calls.clear()
    again = FEW_SHOT.evaluate(model, options={"device": "cpu"}, limit=None, progress=silent)
    assert calls == []
    assert again.answers.equals(whole.answers)
    part = FEW_SHOT.evaluate(model, options={"device": "cpu"}, limit=4, progress=silent)
    assert (calls, len(part.answers)) == ([], 4)
    assert set(part.answers["id"]) < set(whole.answers["id"])


SUBJECTS = ("astronomy", "high_school_physics", "world_religions")


def write_mmlu(root: Path) -> None:
    """Two questions of each of three subjects, one of development, laid out as `cais/mmlu` is on the hub."""
    configs = []
    for subject in SUBJECTS:
        (root / subject).mkdir(parents=True)
        for split, size in [("test", 2), ("dev", 1)]:
            rows = [json.dumps(question(number, subject)) for number in range(size)]
            (root / subject / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
        files = [{"split": split, "path": f"{subject}/{split}.jsonl"} for split in ("test", "dev")]
        configs.append({"config_name": subject, "data_files": files})
    (root / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")


@pytest.mark.slow
def test_mmlu_is_lm_evals_own_task_on_a_folder_of_the_hubs_layout(model, tmp_path, monkeypatch):
    monkeypatch.setattr(language, "leaves", lambda manager, task: [f"{task}_{one}" for one in SUBJECTS])
    write_mmlu(tmp_path / "hub" / "cais" / "mmlu")
    mmlu, options = BENCHMARKS["mmlu"], {"device": "cpu", "data": str(tmp_path / "hub")}
    found = mmlu.evaluate(model, options=options, limit=None, progress=silent)
    assert len(found.answers) == 2 * 3
    (score,) = found.scores
    assert score.value == pytest.approx(found.answers["score"].mean())
    first = found.answers.set_index("id").loc["mmlu_high_school_physics/1"]
    assert first["asked"].startswith(
        "The following are multiple choice questions (with answers) about high school physics."
    )
    assert first["given"] == likeliest(model, question(1, "high school physics"))
    assert found.settings["data"].startswith("cais/mmlu @ folder ")
    assert found.settings["num_fewshot"] == "0"
    assert len(mmlu.evaluate(model, options=options, limit=5, progress=silent).answers) == 5


@pytest.mark.slow
def test_groups_come_down_to_the_tasks_of_the_paper():
    for name, number in [("mmlu", 57), ("cmmlu", 67), ("ceval", 52), ("agieval", 21)]:
        benchmark = BENCHMARKS[name]
        manager = manager_of(benchmark.task)
        found = list(leaves(manager, benchmark.task))
        assert len(found) == len(set(found)) == number
        revisions = dict.fromkeys(benchmark.datasets, "c0ffee")
        changes = [place_of_data(manager, leaf, None, revisions) for leaf in found]
        assert {changed["dataset_kwargs"]["revision"] for changed in changes} == {"c0ffee"}
        assert {str((manager.task_index[leaf].cfg or {})["dataset_path"]) for leaf in found} == set(benchmark.datasets)
    with pytest.raises(LabError, match="'mmlu_astronomy' reads cais/mmlu, of which no revision is known"):
        place_of_data(manager_of("mmlu"), "mmlu_astronomy", None, {"other/set": "1"})


@pytest.mark.slow
def test_data_that_is_no_data_set_is_named(model, tmp_path):
    broken = tmp_path / "hub" / "cais" / "mmlu"
    broken.mkdir(parents=True)
    (broken / "notes.txt").write_text("nothing")
    options = {"device": "cpu", "data": str(tmp_path / "hub")}
    with pytest.raises(LabError, match=r"the data of lm-eval's task 'mmlu' cannot be read from the folder .*/hub: "):
        BENCHMARKS["mmlu"].evaluate(model, options=options, limit=None, progress=silent)


def test_bad_input_is_refused_before_anything_is_loaded(model, tmp_path, monkeypatch):
    mmlu = BENCHMARKS["mmlu"]
    for benchmark, name, options, message in [
        (FEW_SHOT, "smollm", {}, "unknown model 'smollm'; expected one of smollm2_135m, a local folder"),
        (FEW_SHOT, "character", {}, "model 'character' reads only the letters of its alphabet"),
        (FEW_SHOT, model, {"batch_size": "0"}, "option batch_size is '0'; expected a whole number from 1"),
        (FEW_SHOT, model, {"precision": "int8"}, "option precision is 'int8'; choose one of: float32, bfloat16, auto"),
        (FEW_SHOT, model, {"device": "tpu"}, "unknown device 'tpu'"),
        (FEW_SHOT, model, {"data": "x"}, "unknown option of benchmark 'mmlu_few_shot_questions' 'data'"),
        (mmlu, model, {"data": str(tmp_path)}, f"the folder {tmp_path} has no cais/mmlu/, which benchmark 'mmlu'"),
    ]:
        with pytest.raises(LabError) as refused:
            benchmark.check(name, options=options)
        assert message in str(refused.value)
    with pytest.raises(LabError, match="limit is 0"):
        FEW_SHOT.evaluate(model, options={}, limit=0, progress=silent)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else find(name))
    with pytest.raises(LabError, match=r"needs lm-eval, which is not installed; .* pip install 'omni-lab\[evaluate\]'"):
        FEW_SHOT.check(model, options={})


def test_precision_and_weights_are_part_of_the_identity(model):
    auto = FEW_SHOT.check(model, options={"device": "cpu"})
    assert auto == FEW_SHOT.check(model, options={"device": "cpu", "precision": "float32", "batch_size": "4"})
    assert auto.settings != FEW_SHOT.check(model, options={"device": "cpu", "precision": "bfloat16"}).settings
    assert FEW_SHOT.check("smollm2_135m", options={}).model_key.startswith("smollm2_135m@")
