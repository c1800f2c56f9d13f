"""A judge of open answers: any model that replies, asked again where it replies nonsense, and never silently a zero.

Section 4 of the paper (GPT-3.5-Turbo; yes or no gives accuracy, 0 to 5 gives a score). Its replies are kept by judge,
prompt version, sample and answer, so that a run that stops goes on where it was.
"""

from collections.abc import Sequence

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Progress
from lab.evaluation.benchmarks.conversations import Conversation, Refused, TextModel
from lab.evaluation.benchmarks.kept_answers import KeptAnswers
from lab.evaluation.benchmarks.verdicts import Case, Verdict, find_prompt

NUM_ATTEMPTS = 3
MAX_NEW_TOKENS = 64
# Of a reply that could not be used, shown with the reason.
_SHOWN = 80


class Judge:
    """Judges answers with one prompt.

    Args:
        model: the one that judges.
        prompt: a table of `judge_prompts.toml`: `yes_no` or `score`.
        num_attempts: how often one answer is shown to it at most, the later times with what was wrong before.

    Raises:
        LabError: no such prompt, or fewer than one attempt.
    """

    def __init__(self, model: TextModel, *, prompt: str, num_attempts: int = NUM_ATTEMPTS) -> None:
        if num_attempts < 1:
            raise LabError(f"a judge is asked {num_attempts} times, expected at least 1")
        self.prompt = find_prompt(prompt)
        self.num_attempts = num_attempts
        self.kept = KeptAnswers(model, purpose=f"verdicts of {self.prompt.called}")

    def verdicts(self, cases: Sequence[Case], progress: Progress | None = None) -> list[Verdict]:
        """The verdict on each answer, in their order; `progress` counts the verdicts of the first asking.

        Raises:
            LabError: the judge cannot be asked, after what it had said was kept: the same call goes on from there.
        """
        verdicts: dict[int, Verdict] = {}
        open_cases = {index: self.prompt.opening(case) for index, case in enumerate(cases)}
        for attempt in range(1, self.num_attempts + 1):
            ids = [cases[index].id for index in open_cases]
            replies = self.kept.replies(ids, list(open_cases.values()), progress if attempt == 1 else None)
            unusable: dict[int, Conversation] = {}
            for (index, said), reply in zip(open_cases.items(), replies, strict=True):
                if isinstance(reply, Refused):
                    verdicts[index] = Verdict(unjudged=f"refused: {reply.why}", num_asked=attempt)
                elif (found := self.prompt.read(reply)) is not None:
                    verdicts[index] = Verdict(correct=found.correct, score=found.score, num_asked=attempt)
                elif attempt == self.num_attempts:
                    shown = " ".join(reply.split())[:_SHOWN]
                    verdicts[index] = Verdict(unjudged=f"no verdict in {shown!r}", num_asked=attempt)
                else:
                    unusable[index] = self.prompt.asked_again(said, reply)
            open_cases = unusable
            if not open_cases:
                break
        return [verdicts[index] for index in range(len(cases))]
