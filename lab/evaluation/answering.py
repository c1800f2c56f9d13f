"""A model asked about samples: it transcribes, chooses among choices, or writes, and every item becomes a line.

Section 4 of the paper (word error rate, accuracy). The line is that of `lab.evaluation.items`, whatever the modality.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch

from lab.data.normalizers import Normalizer, text_errors
from lab.data.sample import TRANSCRIBE, Sample
from lab.data.video import PAPER_SIGHT, Sight
from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Progress
from lab.evaluation.items import CUT, STOPPED
from lab.parts.decoding import decode
from lab.parts.omni_model import OmniModel
from lab.training.samples import NO_TILES, SampleExamples, Tiling
from lab.training.scoring import ScoringOptions, answer_losses

# Encoder frames of sound in a second.
FRAMES_PER_SECOND = 50.0


@dataclass(frozen=True, kw_only=True)
class Write:
    """The model writes its answer, which is compared with the right one after the normaliser.

    An answer is cut at `max_new_tokens`; `num_beams` of 1 is greedy decoding. A batch has up to `batch_size` samples of
    similar length and `batch_tokens` positions, padding included.
    """

    normalizer: Normalizer
    num_beams: int = 1
    max_new_tokens: int = 128
    batch_size: int = 64
    batch_tokens: int = 12_000

    def sizes(self, model: OmniModel, asked: SampleExamples) -> list[int]:
        """How long each sample is: those of similar length share a batch."""
        return [asked.num_tokens(i, model) for i in range(len(asked))]

    def limit(self, size: int) -> int:
        """New tokens of an answer at most."""
        return self.max_new_tokens

    def answers(self, model: OmniModel, asked: SampleExamples, told: Progress) -> pd.DataFrame:
        """Decode and score every sample."""
        sizes = self.sizes(model, asked)
        given, ends = [""] * len(asked), [""] * len(asked)
        losses, counts = [0.0] * len(asked), [0] * len(asked)
        for batch in _batches(sizes, [1] * len(asked), self.batch_tokens, self.batch_size):
            read = model.read([asked.example(i, model) for i in batch])
            scored = model(read)
            limits = [self.limit(sizes[i]) for i in batch]
            found = decode(model, read, max_new_tokens=limits, num_beams=self.num_beams)
            of_batch = zip(batch, found, limits, scored.loss.tolist(), scored.num_tokens.tolist(), strict=True)
            for i, tokens, limit, loss, count in of_batch:
                given[i], losses[i], counts[i] = model.codec.decode(tokens), loss, count
                ends[i] = STOPPED if len(tokens) < limit else CUT
            told(sum(count > 0 for count in counts), len(asked))
        samples = asked.samples
        table = text_errors([one.answer for one in samples], given, self.normalizer, [one.id for one in samples])
        return table.assign(num_choices=0, loss=losses, num_tokens=counts, finish_reason=ends)


@dataclass(frozen=True, kw_only=True)
class Transcribe(Write):
    """The model writes what it hears: an answer is cut at `max_tokens_per_second` of its sound, plus ten tokens.

    A batch has up to `batch_tokens` encoder frames. Who say the same words are one group, whoever speaks.
    """

    max_tokens_per_second: float = 25.0

    def sizes(self, model: OmniModel, asked: SampleExamples) -> list[int]:
        """Encoder frames of each sound."""
        return [asked.num_frames(i, model) for i in range(len(asked))]

    def limit(self, size: int) -> int:
        """New tokens of a transcript at most."""
        return math.ceil(size / FRAMES_PER_SECOND * self.max_tokens_per_second) + 10

    def answers(self, model: OmniModel, asked: SampleExamples, told: Progress) -> pd.DataFrame:
        """As of `Write`."""
        table = super().answers(model, asked, told)
        return table.assign(group=table["answer_normalized"], task=TRANSCRIBE)


@dataclass(frozen=True, kw_only=True)
class Choose:
    """Each choice is scored as the answer, and the likeliest is taken; of equally likely ones the first.

    Without `per_token` the sum of a choice's log-likelihood decides, its end included, as in lm-eval's `acc`; with it
    the mean, as in `acc_norm`: for answers that differ in length. With `pack_tokens` the rows, one a choice, stand in
    packs in `precision`; else side by side, so many that a batch has about `batch_tokens` positions.
    """

    per_token: bool = False
    pack_tokens: int = 0
    precision: str = "float32"
    batch_tokens: int = 8192

    def answers(self, model: OmniModel, asked: SampleExamples, told: Progress) -> pd.DataFrame:
        """Score the choices of every sample.

        Raises:
            LabError: a sample without choices, or of packs what `answer_losses` refuses.
        """
        for sample in asked.samples:
            if not sample.choices:
                raise LabError(
                    f"answers are chosen among choices; sample {sample.id!r} of {asked.name!r} has none: name a "
                    "source whose questions have choices, such as next_qa@hub:OWNER/NAME"
                )
        lines = []
        scored = self._packed(model, asked) if self.pack_tokens else self._padded(model, asked, told)
        for sample, own in zip(asked.samples, scored, strict=True):
            keys = [loss / count if self.per_token else loss for loss, count in own]
            given = sample.choices[keys.index(min(keys))]
            loss, count = own[sample.choices.index(sample.answer)]
            lines.append(
                {
                    "given": given,
                    "answer_normalized": sample.answer,
                    "given_normalized": given,
                    "num_choices": len(sample.choices),
                    "wrong_answers": int(given != sample.answer),
                    "loss": loss,
                    "num_tokens": count,
                }
            )
        uncounted = dict.fromkeys(("character_errors", "num_characters", "word_errors", "num_words"), 0)
        return pd.DataFrame(lines).assign(num_questions=1, finish_reason="", **uncounted)

    def _padded(self, model: OmniModel, asked: SampleExamples, told: Progress) -> list[list[tuple[float, int]]]:
        """Loss and tokens of each choice; what stands before the choices is read once."""
        sizes = [asked.num_tokens(i, model) for i in range(len(asked))]
        choices = [one.choices for one in asked.samples]
        found: list[list[tuple[float, int]]] = [[] for _ in sizes]
        for batch in _batches(sizes, list(map(len, choices)), self.batch_tokens):
            read = model.read([asked.example(i, model) for i in batch])
            rows = [(at, choice) for at, i in enumerate(batch) for choice in choices[i]]
            scored = model([replace(read[at], answer=asked.answer_ids(choice, model)) for at, choice in rows])
            of_rows = zip(rows, scored.loss.tolist(), scored.num_tokens.tolist(), strict=True)
            for (at, _), loss, count in of_rows:
                found[batch[at]].append((loss, count))
            told(sum(map(bool, found)), len(asked))
        return found

    def _packed(self, model: OmniModel, asked: SampleExamples) -> list[list[tuple[float, int]]]:
        rows = [(i, choice) for i, one in enumerate(asked.samples) for choice in one.choices]
        given = [asked.example(i, model) for i in range(len(asked))]
        examples = [replace(given[i], answer=asked.answer_ids(choice, model)) for i, choice in rows]
        means = answer_losses(
            model,
            lambda places: [examples[place] for place in places],
            [model.num_tokens(example) - 1 for example in examples],
            ScoringOptions(budget_tokens=self.pack_tokens, precision=self.precision),
            [asked.samples[i].id for i, _ in rows],
            scorer=model.language.name,
        )
        found: list[list[tuple[float, int]]] = [[] for _ in asked.samples]
        for (i, _), example, mean in zip(rows, examples, means.tolist(), strict=True):
            count = len(example.answer) + 1
            found[i].append((mean * count, count))
        return found


How = Write | Choose


def how_asked(asked: SampleExamples, normalizer: Normalizer, *, num_beams: int = 1) -> How:
    """As the task is: what is said is transcribed, what has choices chosen, all else written."""
    if all(one.choices for one in asked.samples):
        return Choose()
    kind = Transcribe if all(one.task == TRANSCRIBE for one in asked.samples) else Write
    return kind(normalizer=normalizer, num_beams=num_beams)


@torch.inference_mode()
def answer(model: OmniModel, asked: SampleExamples, how: How, *, progress: Progress | None = None) -> pd.DataFrame:
    """Ask a model about every sample; one line each, in their order, with the columns of `lab.evaluation.items`.

    `progress` is told how many are answered, and of how many.
    """
    model.eval()
    facts = [
        {
            "source": asked.name,
            "id": one.id,
            "group": one.group,
            "task": one.task,
            "asked": one.asked,
            "answer": one.answer,
        }
        for one in asked.samples
    ]
    found = how.answers(model, asked, progress or (lambda done, total: None))
    return pd.DataFrame(facts).assign(**{name: found[name] for name in found})


def answer_tests(
    model: OmniModel, tests: Mapping[str, SampleExamples], normalizer: Normalizer, *, most: int | None = None
) -> dict[str, pd.DataFrame]:
    """Several tests by name, or the first items of each, each asked as its task is; `test` is a column more."""
    few = {name: replace(test, samples=test.samples[:most]) for name, test in tests.items()}
    found = {name: answer(model, test, how_asked(test, normalizer)) for name, test in few.items()}
    return {name: items.assign(split="test", test=name) for name, items in found.items()}


def ask(
    model: OmniModel,
    sample: Sample,
    *,
    sight: Sight = PAPER_SIGHT,
    tiling: Tiling = NO_TILES,
    num_beams: int = 1,
    max_new_tokens: int = 128,
) -> str:
    """What a model that has its encoders inside answers to a sample, whose right answer need not be known."""
    example = SampleExamples(samples=[sample], sight=sight, tiling=tiling).example(0, model)
    (tokens,) = decode(model, [example], max_new_tokens=max_new_tokens, num_beams=num_beams)
    return model.codec.decode(tokens)


def _batches(sizes: Sequence[int], rows: Sequence[int], most: int, batch_size: int = 0) -> Iterator[list[int]]:
    """Items from short to long, cut where their rows are as wide as the longest and would pass `most` together."""
    batch: list[int] = []
    in_batch = 0
    for i in sorted(range(len(sizes)), key=sizes.__getitem__):
        if batch and (len(batch) == batch_size or (in_batch + rows[i]) * sizes[i] > most):
            yield batch
            batch, in_batch = [], 0
        batch.append(i)
        in_batch += rows[i]
    if batch:
        yield batch
