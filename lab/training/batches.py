"""The batch of every step, padded or packed, the same for the same seed however often a run is interrupted.

Section 3 of the paper (packed fine-tuning). One packed step is one pack, so that a step costs nearly the same whatever
it holds: where a padded batch has so many examples, a pack has so many tokens.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from lab.data.batching import batches_from, bucketed_epoch, padding_share
from lab.data.packing import PackedEpochs, PackingStatistics, TooLong
from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.omni_model import Example, OmniModel
from lab.training.examples import Examples
from lab.training.packing_certificate import PackingCertificate, certify
from lab.training.packing_probe import NUM_SAMPLES, packing_probe


class PaddedBatches:
    """Batches of `batch_size` examples of similar length; 0: as many as have about `max_tokens` together.

    Raises:
        LabError: no examples, or one that takes more than `max_tokens`.
    """

    def __init__(
        self, data: Examples, model: OmniModel, *, batch_size: int = 0, seed: int, max_tokens: int = 4096
    ) -> None:
        self._data, self._model, self._seed = data, model, seed
        self.lengths = [data.num_tokens(index, model) for index in range(len(data))]
        if not self.lengths:
            raise LabError("batches need at least one example, and there is none")
        longest = int(np.argmax(self.lengths))
        if self.lengths[longest] > max_tokens:
            raise LabError(
                f"example {data.ids[longest]!r} takes {self.lengths[longest]} tokens, more than {max_tokens}; allow "
                "more tokens, choose a projector that gives fewer, or leave it out"
            )
        self._batch_size = batch_size or max(1, round(max_tokens / (sum(self.lengths) / len(self.lengths))))
        self._order: Iterator[list[int]] = self._from(0)
        self._next = 0

    def _from(self, step: int) -> Iterator[list[int]]:
        return batches_from(self.lengths, batch_size=self._batch_size, seed=self._seed, first_step=step)

    def indices(self, step: int) -> list[int]:
        """The examples of one step."""
        if step != self._next:
            self._order = self._from(step)
        self._next = step + 1
        return next(self._order)

    def loss(self, step: int) -> AnswerLoss:
        """Losses of the batch of one step."""
        loss: AnswerLoss = self._model(_drawn(self._data, self._model, self.indices(step), [self._seed, step]))
        return loss

    def padding_share(self) -> float:
        """Share of the positions of the first epoch that are padding."""
        epoch = bucketed_epoch(self.lengths, batch_size=self._batch_size, seed=self._seed, epoch=0)
        return padding_share(self.lengths, epoch)


class PackedBatches:
    """Packs of about `budget` tokens, each example in one (best-fit decreasing), and their certificate.

    An example that training makes longer than it is counted for may take its pack over the budget. `certificate` and
    `statistics` are to be logged with the run.

    Args:
        data: what is packed.
        model: as it will train.
        budget: tokens of a pack.
        seed: of the order.
        too_long: what happens to examples longer than the budget (see `pack_best_fit`).
        attention: of `PACKED_ATTENTION`, or `auto`.
        precision: the training's.

    Raises:
        LabError: what `PackedEpochs` refuses.
    """

    def __init__(
        self,
        data: Examples,
        model: OmniModel,
        *,
        budget: int,
        seed: int,
        too_long: TooLong = "refuse",
        attention: str = "auto",
        precision: str = "auto",
    ) -> None:
        self._data, self._model, self._seed = data, model, seed
        self._attention, self._precision = attention, precision
        self.lengths = [data.num_tokens(index, model) for index in range(len(data))]
        # The end stands in no row: it is only ever a label.
        rows = [length - 1 for length in self.lengths]
        self._packs = PackedEpochs(lengths=rows, budget=budget, seed=seed, too_long=too_long, ids=data.ids)
        self.statistics: PackingStatistics = self._packs.statistics

    @cached_property
    def certificate(self) -> PackingCertificate:
        """The certificate of the shortest examples of the first pack; the same one again where there are too few.

        Raises:
            LabError: a leak, as `PackingCertificate.require` names it.
        """
        chosen = np.resize(self._packs.shortest_of(0), NUM_SAMPLES)
        examples = [self._data.example(int(index), self._model) for index in chosen]
        probe = packing_probe(self._model, examples)
        return certify(self._model, probe, attention=self._attention, precision=self._precision).require()

    def indices(self, step: int) -> list[int]:
        """The examples of one step."""
        return [int(index) for index in self._packs.pack(step)]

    def loss(self, step: int) -> AnswerLoss:
        """Losses of the pack of one step, one an example; the first asks for the certificate.

        Raises:
            LabError: as `certificate`.
        """
        attention = self.certificate.attention
        examples = _drawn(self._data, self._model, self.indices(step), [self._seed, step])
        return self._model.packed(examples, attention=attention).loss

    def padding_share(self) -> float:
        """Share of the positions computed that are padding: none."""
        return 0.0


def _drawn(data: Examples, model: OmniModel, indices: list[int], seeds: list[int]) -> list[Example]:
    rng = np.random.default_rng(seeds)
    return [data.training_example(index, model, rng) for index in indices]
