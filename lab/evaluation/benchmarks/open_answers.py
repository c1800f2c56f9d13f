"""Open questions whose answers a judge marks: text, pictures, and the videos of ActivityNet-QA and MSVD-QA (Table 5).

Differs from the paper: its prompts, to the model and to the judge, are not found; ours are versioned
(`QUESTION_PROMPT` here, `judge_prompts.toml`). Its judge is GPT-3.5-Turbo; ours is whichever `judge` names, and stands
in the score's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import (
    Benchmark,
    Identity,
    Kind,
    Progress,
    Score,
    sampled,
    whole_number,
)
from lab.evaluation.benchmarks.endpoints import FRAMES, PREFIX
from lab.evaluation.benchmarks.items import data_key, read_questions
from lab.evaluation.benchmarks.judge import MAX_NEW_TOKENS, NUM_ATTEMPTS, find_prompt, marks_of
from lab.evaluation.benchmarks.replies import replies_of
from lab.evaluation.benchmarks.scores import judged_scores
from lab.evaluation.benchmarks.text_models import TEXT_MODELS, decoding_of, model_key, open_text_model

if TYPE_CHECKING:
    import pandas

QUESTION_PROMPT = "{question}\nAnswer the question in a single word or short phrase."
QUESTION_PROMPT_VERSION = "ours, 1"
_OPTIONS = {
    "judge": f"who marks the answers: {TEXT_MODELS}; it has to be named",
    "judge_prompt": "yes_no (accuracy, and a score of 0 to 5) or score (0 to 5 alone); the default is the benchmark's",
    "data": "a JSONL or Parquet file of question and reference, or hub:OWNER/NAME[:CONFIG[:SPLIT]]",
    "max_new_tokens": "at which an answer is cut (default: 64)",
}
_NEW_TOKENS = ("max_new_tokens", "64")


@dataclass(frozen=True, kw_only=True)
class OpenAnswers(Benchmark):
    """Questions that a model answers in its own words."""

    data: str = ""
    """Where the questions are, without the option `data`; empty where that has to be given."""
    judge_prompt: str = "yes_no"
    sees: bool = False
    """Whether the questions are about videos, so that a language model cannot answer them."""
    kind: Kind = "open"
    version: int = 2
    """2: a verdict with words around it is none."""
    models: str = TEXT_MODELS + "; for videos one that sees, behind an endpoint"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)

    def identify(self, model: str, options: Mapping[str, str]) -> Identity:
        """Name the weights, the data, both prompts and the judge.

        Raises:
            LabError: an option is wrong or missing, the model or the judge is none, the model cannot see and has to,
                or the data cannot be found.
        """
        if self.sees and not model.startswith(PREFIX):
            raise LabError(
                f"benchmark {self.name!r} asks about videos, and {model!r} is a language model or none; expected a "
                "model that sees, behind an endpoint: openai:MODEL@URL"
            )
        data = options.get("data", self.data)
        if not data:
            raise LabError(f"benchmark {self.name!r} needs its questions: --option data=..., {_OPTIONS['data']}")
        if "judge" not in options:
            raise LabError(f"benchmark {self.name!r} needs a judge: --option judge=..., {_OPTIONS['judge']}")
        prompt = find_prompt(options.get("judge_prompt", self.judge_prompt))
        settings = {
            "data": data_key(data),
            "question_prompt": QUESTION_PROMPT_VERSION,
            "decoding": f"{decoding_of(model)}, {whole_number(options, *_NEW_TOKENS)} new tokens",
            "judge": f"{model_key(options['judge'])}, {decoding_of(options['judge'])}",
            "judge_prompt": f"{prompt.called}, ours: the paper's is not found",
            "judge_attempts": str(NUM_ATTEMPTS),
        }
        if self.sees:
            settings["frames"] = FRAMES
        return Identity(model_key=model_key(model), settings=settings)

    def ask(
        self, model: str, identity: Identity, options: Mapping[str, str], limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Mapping[str, str]]":
        """Let the model answer and the judge mark; what either has said before is not asked again.

        Raises:
            LabError: the model or the judge cannot be asked, the model refuses a question, or the judge leaves more
                answers unjudged than it judges. What was said until then is kept: the same command goes on from there.
        """
        import pandas as pd

        found = read_questions(options.get("data", self.data))
        questions = [found[index] for index in sampled(len(found), limit)]
        judge = open_text_model(options["judge"], max_new_tokens=MAX_NEW_TOKENS)
        asked = [one.asking(QUESTION_PROMPT.format(question=one.question), one.answer) for one in questions]
        answering = open_text_model(model, max_new_tokens=whole_number(options, *_NEW_TOKENS))
        # One bar for both: the second half is the judge's.
        total = 2 * len(questions)
        answers = replies_of(answering, asked, name=model, progress=lambda done, _: progress(done, total))
        marks = marks_of(
            judge,
            questions,
            answers,
            prompt=options.get("judge_prompt", self.judge_prompt),
            progress=lambda done, _: progress(len(questions) + done, total),
        )
        table = pd.DataFrame(
            {
                "id": [one.id for one in questions],
                "asked": [one.question for one in asked],
                "answer": [one.answer for one in questions],
                "given": answers,
                "score": [mark.score for mark in marks],
                "correct": pd.array([mark.correct for mark in marks], dtype="boolean"),
                "unjudged": [mark.unjudged for mark in marks],
                "times_asked": [mark.num_asked for mark in marks],
            }
        )
        unjudged = f"{sum(mark.score is None for mark in marks)} of {len(marks)}"
        return judged_scores(marks), table, {"unjudged": unjudged}
