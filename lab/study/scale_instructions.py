"""The scale of the studies of instructions: a language model alone, a pack of a fixed number of tokens a step.

Section 3 of the paper (packed fine-tuning).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from lab.errors import LabError
from lab.study.scale_cells import Asked, Column, Count
from lab.training.instruction_data import scored_tokens
from lab.training.language_models import language_model_without_weights
from lab.training.memory import Memory, PartMemory, language_model_memory, logits_bytes
from lab.training.parameters import TextTuningParameters
from lab.training.saved_bytes import Precision
from lab.training.scoring_memory import scoring_bytes

TEXT_PARTS = ("language_model",)


class InstructionCells:
    """The cells of a rung; language model and pack are the same in all rows.

    Args:
        rows: parameters of each, by row.
        asked: `answer_tokens` of a pack are scored, all of it where None: the most that there can be.
        precision: of weights and products.

    Raises:
        LabError: more tokens of answers than a pack has, something that no pack has, or an unknown model.
    """

    kind = "instructions"
    needed = ("instructions", "scorer", "language_model", "max_tokens", "budget_tokens", "precision")
    parts = TEXT_PARTS
    studied_as = "language model"
    columns: Mapping[str, Column] = {"tokens a pack": lambda memory: str(memory.tokens)}
    stage_columns: Mapping[str, Column] = {}

    def __init__(self, rows: Mapping[str, TextTuningParameters], asked: Asked, precision: Precision) -> None:
        for name in ("seconds", "question_tokens", "batch_size"):
            asked.refuse(name, "a study of packed instructions")
        shared = next(iter(rows.values()))
        self._shared, self._precision = shared, precision
        self._tokens: int = shared.budget_tokens
        self._answers = self._tokens if asked.answer_tokens is None else asked.answer_tokens
        if not 0 < self._answers <= self._tokens:
            raise LabError(f"answer_tokens is {self._answers}; expected 1 to the pack's {self._tokens}")
        self._language_model: Any = language_model_without_weights(shared.language_model)

    @property
    def heading(self) -> tuple[str, str]:
        """The model, and the pack of a step."""
        return (
            f"{self._shared.language_model}, scored by {self._shared.scorer}",
            f"one pack of {self._tokens:,} tokens, {self._answers:,} of them answers'",
        )

    def notes(self, parameters: TextTuningParameters) -> tuple[str, ...]:
        """What scoring takes: the scorer's weights, and a pack of answers alone that passes forward; or why not."""
        tokens = scored_tokens(parameters)
        try:
            scorer: Any = language_model_without_weights(parameters.scorer)
            besides = scoring_bytes(scorer, self._precision, tokens=tokens, answer_tokens=tokens)
        except LabError as error:
            return (f"Scoring before it cannot be counted: {error}",)
        count = sum(parameter.numel() for parameter in scorer.parameters())
        weights = self._precision.weights * count
        return (
            f"Scoring before it: {parameters.scorer} ({count / 1e6:,.1f} M parameters, {weights / 1e9:,.2f} GB of "
            f"weights), forward only, at most {besides / 1e9:,.2f} GB besides, in packs of {tokens:,} tokens.",
        )

    def studied(self, memory: Memory) -> PartMemory:
        """The language model."""
        return memory.parts[0]

    def row(self, parameters: TextTuningParameters) -> Count:
        """Counts a pack; what a filter keeps changes nothing of it."""
        return partial(self._count)

    def stages(self, parameters: TextTuningParameters) -> dict[str, Count]:
        """None: each of the paper's stages has parts that this study has not."""
        return {}

    def _count(self) -> Memory:
        # The samples of a pack stand in one row, and the head runs on the answers alone: a start is scored, an end not.
        part = language_model_memory(
            self._language_model,
            self._precision,
            trained=True,
            batch_size=1,
            tokens=self._tokens,
            answer_tokens=self._answers - 1,
        )
        logits = logits_bytes(self._language_model, 1, self._answers - 1)
        return Memory(parts=(part,), batch_size=1, tokens=self._tokens, logits=logits)
