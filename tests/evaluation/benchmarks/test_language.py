import importlib.util
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from lab.data import hub
from lab.errors import LabError
from lab.evaluation.benchmarks import language
from lab.evaluation.benchmarks.registry import BENCHMARKS
from standins.instructions import mmlu
from tests.evaluation.benchmarks.fakes import asked
from tests.parts.tiny_models import llama

PROMPT = "The following are multiple choice questions with answers about Answer which of these is red blue green"
VOCABULARY = {word: place for place, word in enumerate(["<eos>", "<unk>", *"ABCD", *".:?()", *PROMPT.split()])}
FEW_SHOT = BENCHMARKS["mmlu_few_shot_questions"]
CPU = {"device": "cpu"}


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
    found = asked(FEW_SHOT, model, CPU, progress=lambda done, total: seen.append((done, total)))
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
        asked(FEW_SHOT, model, CPU, progress=stop)
    before = sum(calls)
    assert 5 <= before < 10
    calls.clear()
    whole = asked(FEW_SHOT, model, CPU)
    assert sum(calls) == 10 - 4  # the fifth lacks three of its choices
    calls.clear()
    again = asked(FEW_SHOT, model, CPU)
    assert calls == []
    assert again.answers.equals(whole.answers)
    part = asked(FEW_SHOT, model, CPU, 4)
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
def test_a_group_of_lm_eval_is_asked_whole_and_its_accuracy_is_over_all_questions(model, tmp_path, monkeypatch):
    """lm-eval's own `mmlu`, of three subjects, with data laid out as `cais/mmlu` is on the hub."""
    from lm_eval import tasks

    write_mmlu(tmp_path / "mmlu")
    own = tmp_path / "tasks" / "mmlu"
    own.mkdir(parents=True)
    template = yaml.safe_load((Path(tasks.__file__).parent / "mmlu/default/_default_template_yaml").read_text())
    for subject in SUBJECTS:
        task = {**template, "dataset_path": str(tmp_path / "mmlu"), "dataset_name": subject}
        task |= {"task": f"mmlu_{subject}", "description": f"The following are about {subject}.\n\n"}
        (own / f"{subject}.yaml").write_text(yaml.safe_dump({**task, "num_fewshot": 5}))
    group = {"group": "mmlu", "task": [f"mmlu_{subject}" for subject in SUBJECTS]}
    (own / "mmlu.yaml").write_text(yaml.safe_dump(group))
    monkeypatch.setattr(tasks, "__file__", str(tmp_path / "tasks" / "__init__.py"))
    monkeypatch.setattr(hub, "data_revision", lambda name: "c0ffee")
    mmlu = BENCHMARKS["mmlu"]
    found = asked(mmlu, model, CPU)
    assert len(found.answers) == 2 * 3
    (score,) = found.scores
    assert score.value == pytest.approx(found.answers["score"].mean())
    first = found.answers.set_index("id").loc["mmlu_high_school_physics/1"]
    assert first["asked"].startswith("The following are about high_school_physics.")
    assert first["asked"].count("Answer:") == 1  # zero-shot
    assert found.settings["data"] == "cais/mmlu @ c0ffee"
    assert len(asked(mmlu, model, CPU, 1).answers) == 3  # one of each


@pytest.mark.slow
def test_the_papers_tasks_are_groups_of_lm_eval():
    from lm_eval import tasks

    for name, number in [("mmlu", 57), ("cmmlu", 67), ("ceval", 52), ("agieval", 21)]:
        benchmark = BENCHMARKS[name]
        assert isinstance(benchmark, language.LanguageBenchmark)
        folder = Path(tasks.__file__).parent / benchmark.task.partition("-")[0]
        manager = tasks.TaskManager(include_defaults=False, include_path=str(folder))
        assert benchmark.task in manager.all_tasks
        read = {str((manager.task_index[one].cfg or {}).get("dataset_path")) for one in manager.all_subtasks}
        assert set(benchmark.datasets) <= read
        assert len(manager.all_subtasks) >= number


@pytest.mark.slow
def test_what_lm_eval_cannot_ask_is_said_in_one_sentence(model, questions, monkeypatch):
    def gone(**_: object) -> object:
        raise OSError("no route to the hub\nmore")

    monkeypatch.setattr(mmlu, "few_shot_questions", gone)
    with pytest.raises(LabError, match=r"cannot ask .* its task 'mmlu_few_shot_questions': no route to the hub; "):
        asked(FEW_SHOT, model, CPU)


def test_an_endpoints_model_is_known_by_its_class_and_name():
    options = {**CPU, "model_class": "local-completions", "model_args": "base_url=http://localhost:1/v1/completions"}
    found = FEW_SHOT.identify("own-model", options)
    assert found.model_key == "local-completions:own-model"
    assert found.settings["model_args"] == "base_url=http://localhost:1/v1/completions"


class Server(ThreadingHTTPServer):
    """Answers completions: an echo with likelihoods of words, of which A is the likeliest; or a byte each 0.2 s."""

    daemon_threads = True

    def __init__(self, drips: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), self.answer)
        self.drips = drips
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, *given: Any) -> BaseHTTPRequestHandler:
        return Handler(*given)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        (words,) = asked["prompt"]
        if not asked.get("logprobs"):
            text = {"index": 0, "text": f"{len(words)} words", "finish_reason": "length" if len(words) > 3 else "stop"}
            return self.reply(json.dumps({"choices": [text]}).encode())
        likelihoods = [-1.0] * (len(words) - 1) + [-0.5 if words[-1] == VOCABULARY["A"] else -2.0, 0.0]
        logprobs = {"token_logprobs": likelihoods, "top_logprobs": [{"x": 0.0}] * len(likelihoods)}
        return self.reply(json.dumps({"choices": [{"index": 0, "logprobs": logprobs}]}).encode())

    def reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for place in range(len(body)) if self.server.drips else ():
            self.wfile.write(body[place : place + 1])
            self.wfile.flush()
            time.sleep(0.2)
        if not self.server.drips:
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def at(server: Server, model: str, more: str = "") -> dict[str, str]:
    place = f"http://127.0.0.1:{server.server_address[1]}/v1/completions"
    return {**CPU, "model_class": "local-completions", "model_args": f"base_url={place},tokenizer={model}{more}"}


@pytest.mark.slow
def test_an_endpoint_is_asked_and_one_that_drips_is_timed_out(model, questions):
    with Server() as server:
        found = asked(FEW_SHOT, "own-model", at(server, model))
        assert set(found.answers["given"]) == {"A"}
        assert found.settings["unanswered"] == "0 of 10, counted as wrong"
        assert found.settings["cut_off"] == "0 of 10, at their limit of tokens"
        server.shutdown()
    begun = time.monotonic()
    with Server(drips=True) as server:
        with pytest.raises(LabError, match=r"cannot ask 'own-model' its task"):
            asked(FEW_SHOT, "own-model", at(server, model, ",timeout=1,max_retries=1"), limit=1)
        server.shutdown()
    assert time.monotonic() - begun < 20  # the drip takes 40 s


@pytest.mark.slow
def test_why_a_reply_of_an_endpoint_ends_is_kept_beside_it(model):
    from lm_eval.api.instance import Instance

    with Server() as server:
        options = at(server, model)
        identity = FEW_SHOT.identify("own-model", options)
        for _ in range(2):  # the second time nobody is asked
            lm = language._opened("own-model", identity, options, lambda done: None)
            how = {"until": ["\n"], "max_gen_toks": 8}
            texts = [" ".join(["red"] * count) for count in (2, 5)]
            replies = lm.generate_until([Instance("generate_until", {}, (text, how), 0) for text in texts])
            assert [lm.dbdict[f"finish_reason {reply}"] for reply in replies] == ["stop", "length"]
            lm.dbdict.close()
        server.shutdown()


def test_chats_are_refused_before_anything_is_loaded():
    options = {**CPU, "model_class": "local-chat-completions"}
    with pytest.raises(LabError, match=r"'local-chat-completions' asks for chats.*one of local-completions, openai-"):
        FEW_SHOT.identify("own-model", options)


def test_bad_input_is_refused_before_anything_is_loaded(model, monkeypatch):
    for name, options, message in [
        ("smollm", {}, "unknown model 'smollm'; expected one of smollm2_135m, a local folder"),
        (model, {"batch_size": "0"}, "option batch_size is '0'; expected a whole number from 1"),
        (model, {"precision": "int8"}, "unknown precision 'int8'; choose one of: auto, bfloat16, float32"),
        (model, {"device": "tpu"}, "unknown device 'tpu'"),
        (model, {"model_args": "x"}, "option model_args is 'x'; expected NAME=VALUE"),
    ]:
        with pytest.raises(LabError) as refused:
            FEW_SHOT.identify(name, options)
        assert message in str(refused.value)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else find(name))
    with pytest.raises(LabError, match=r"needs lm-eval, which is not installed; .* pip install 'omni-lab\[evaluate\]'"):
        FEW_SHOT.identify(model, {})


def test_precision_and_weights_are_part_of_the_identity(model):
    auto = FEW_SHOT.identify(model, CPU)
    assert auto == FEW_SHOT.identify(model, {**CPU, "precision": "float32", "batch_size": "4"})
    assert auto.settings != FEW_SHOT.identify(model, {**CPU, "precision": "bfloat16"}).settings
    assert FEW_SHOT.identify("smollm2_135m", {}).model_key.startswith("smollm2_135m@")
    assert FEW_SHOT.identify("smollm2_135m", CPU).key(FEW_SHOT, None) == "a8d116d58a2b13aa"  # as tracked
