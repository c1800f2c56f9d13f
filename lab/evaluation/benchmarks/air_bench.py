"""AIR-Bench's chat questions about speech, sound, music and mixtures, in lmms-eval's form (section 4, Table 7).

A judge is asked twice for each answer, which stands once after the reference and once before it, and marks both from 1
to 10; an answer's mark is the mean of its two. That is the scale of Table 7. A reply that is not two whole numbers from
1 to 10 marks nothing, and so does a judge that lmms-eval has asked three times in vain. lmms-eval 0.7.3 counts such an
answer as 0 in its mean; AIR-Bench's own script leaves it out, and so does the score here, beside how many they are. A 0
is on no scale of theirs: lmms-eval drops it, and would then read the reference's mark in its place.

Differs from the paper: its judge and its prompts are not found. AIR-Bench's script asks gpt-4-0125-preview, lmms-eval
by default GPT-4o, with AIR-Bench's prompt and one more sentence; to the question it adds "Give a detail answer to the
question in English." It has the answers drawn (temperature 0.2), and keeps none that is: a run that stops begins again,
and another run's answers are others.
"""

import re
from collections.abc import Sequence

from lab.evaluation.benchmarks.lmms_eval_tasks import DEFAULT_JUDGE, LmmsEvalTask, Metric, fills

_TWO_MARKS = re.compile(r"(10|[1-9])[.,]?\s+(10|[1-9])\.?")


def mean_mark(replies: Sequence[str]) -> float | None:
    """The answer's mark: the mean of the second of the first reply and the first of the second one.

    >>> mean_mark(["9 6", "7 9"]), mean_mark(["9 6", ""]), mean_mark(["9 0", "7 9"])
    (6.5, None, None)
    """
    marks = [_TWO_MARKS.fullmatch(reply.strip()) for reply in replies]
    if len(marks) != 2 or marks[0] is None or marks[1] is None:
        return None
    return (int(marks[0][2]) + int(marks[1][1])) / 2


def _chat(split: str, place: str) -> LmmsEvalTask:
    return LmmsEvalTask(
        tasks=(f"air_bench_chat_{split}",),
        dataset="lmms-lab/AIR_Bench",
        split=f"Chat, {split}",
        metrics={"chat_score": Metric(key="gpt_eval", full=0.0, replies="eval_answer", mark=mean_mark)},
        main="chat_score",
        judge=DEFAULT_JUDGE,
        cells=fills("table_7", f"AIR-Bench {place}", "chat score", "chat_score"),
    )


AIR_BENCH_TASKS: dict[str, LmmsEvalTask] = {
    "air_bench_speech": _chat("speech", "speech"),
    "air_bench_sound": _chat("sound", "sound"),
    "air_bench_music": _chat("music", "music"),
    "air_bench_mix": _chat("mixed", "mix"),
}
