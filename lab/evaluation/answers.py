"""How often a model chooses the right answer: each choice is scored as a continuation, the likeliest is taken.

Section 4 of the paper (top-1 accuracy). As lm-eval does for multiple choice: the sum of a choice's log-likelihood, its
end included, without division by its length.
"""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import torch

from lab.errors import LabError
from lab.parts.omni_model import OmniModel
from lab.training.samples import SampleExamples


@torch.inference_mode()
def measure_answers(model: OmniModel, data: SampleExamples, *, batch_tokens: int = 8192) -> pd.DataFrame:
    """Answer every question of a split; one line each, in the split's order.

    Columns: `corpus` (the split's name), `question` (its id), `group`, `kind`, `asked`, `answer`, `chosen`,
    `wrong_answers` (0 or 1), `num_questions` (1), `num_choices`, `loss` (nats, over the right answer's tokens, end
    included) and `num_tokens`. Of choices equally likely the first counts as chosen.

    Raises:
        LabError: a question without choices.
    """
    for sample in data.samples:
        if not sample.choices:
            raise LabError(
                f"answers are chosen among choices; question {sample.id!r} of {data.name!r} has none: name a "
                "test_source whose questions have choices, such as next_qa@hub:OWNER/NAME"
            )
    model.eval()
    lines: list[dict[str, object]] = [{} for _ in range(len(data))]
    for batch in _batches(model, data, batch_tokens):
        seen = model.read([data.example(i, model) for i in batch])
        rows = [(at, choice) for at, i in enumerate(batch) for choice in data.samples[i].choices]
        scored = model([replace(seen[at], answer=data.answer_ids(choice, model)) for at, choice in rows])
        losses = scored.loss.tolist()
        counts = scored.num_tokens.tolist()
        for at, i in enumerate(batch):
            sample = data.samples[i]
            own = {c: (losses[r], counts[r]) for r, (where, c) in enumerate(rows) if where == at}
            chosen = min(own, key=lambda choice: own[choice][0])
            lines[i] = {
                "question": sample.id,
                "group": sample.group,
                "kind": sample.task,
                "asked": sample.question,
                "answer": sample.answer,
                "chosen": chosen,
                "wrong_answers": int(chosen != sample.answer),
                "num_questions": 1,
                "num_choices": len(sample.choices),
                "loss": own[sample.answer][0],
                "num_tokens": own[sample.answer][1],
            }
    return pd.DataFrame(lines).assign(corpus=data.name)


def _batches(model: OmniModel, data: SampleExamples, batch_tokens: int) -> Iterator[list[int]]:
    """Questions of like length whose rows, one a choice, have about so many positions."""
    sizes = [data.num_tokens(i, model) for i in range(len(data))]
    batch: list[int] = []
    rows = 0
    for i in sorted(range(len(data)), key=lambda i: sizes[i]):
        more = len(data.samples[i].choices)
        if batch and (rows + more) * sizes[i] > batch_tokens:
            yield batch
            batch, rows = [], 0
        batch.append(i)
        rows += more
    if batch:
        yield batch


def answer_scores(table: pd.DataFrame, split: str) -> dict[str, float]:
    """`SPLIT_accuracy`, that of each kind of question, what guessing gives, and the right answers' loss a token."""
    right = 1 - table["wrong_answers"]
    scores = {
        f"{split}_accuracy": float(right.mean()),
        f"{split}_chance": float((1 / table["num_choices"]).mean()),
        f"{split}_loss": float(table["loss"].sum() / table["num_tokens"].sum()),
    }
    scores |= {f"{split}_accuracy_{kind}": float(value) for kind, value in right.groupby(table["kind"]).mean().items()}
    return scores


def answer_costs(model: OmniModel, data: SampleExamples) -> dict[str, float]:
    """What an answer costs: the projector's parameters, visual tokens a frame and a question, frames a question."""
    part = model.parts()[data.branch or "visual_projector"]
    seen = [data.shown_frames(i) for i in range(len(data))]
    visual = [data.num_visual_tokens(i, model) for i in range(len(data))]
    return {
        "projector_parameters": float(sum(parameter.numel() for parameter in part.parameters())),
        "visual_tokens_per_frame": sum(visual) / sum(seen) if sum(seen) else 0.0,
        "visual_tokens_per_question": sum(visual) / len(visual),
        "frames_per_question": sum(seen) / len(seen),
    }
