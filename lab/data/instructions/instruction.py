"""One pair of fine-tuning data: a prompt, and the answer to learn."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """A prompt and its answer; instructions of one `group` are near each other and stay in one split."""

    id: str
    prompt: str
    answer: str
    source: str
    group: str = ""
