"""Which examples go together at every step of a stage, padded or packed: a pure function of the seed and the number.

Section 3 of the paper. A batch is of one kind of data and holds about the same number of language-model tokens whatever
the kind (unless a number of examples is asked for), so a mixing weight is a share of tokens, and no row is padded to
the length of another kind. Packed, a batch is one pack and nothing is padded at all.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from lab.data.packing import PackedEpochs, PackingStatistics, bucketed_epoch, mixture, padding_share
from lab.errors import LabError, choose
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.media_tokens import Seen, Sound
from lab.parts.omni_model import Example, OmniModel, Segment
from lab.parts.packed_attention import check_longest
from lab.training.packing_certificate import NUM_SAMPLES, PackingCertificate, certify
from lab.training.samples import SampleExamples
from lab.training.stages import Stage


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What a batch holds: about `tokens`, or `size` examples none of which is longer; packed, one pack of `tokens`.

    With a `size`, rows of a study see equally many examples whatever their tokens; 0: as `tokens` gives.

    Raises:
        LabError: fewer than one token, fewer than no examples, or a number of examples asked of packs.
    """

    tokens: int = 4096
    size: int = 0
    packed: bool = False

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.size < 0:
            raise LabError(f"a batch of {self.tokens} tokens and {self.size} examples; expected at least 1 and 0")
        if self.packed and self.size:
            raise LabError(
                f"a batch of {self.size} examples, but a pack holds as many as fit its {self.tokens} tokens; expected "
                "size 0, or padded batches"
            )


@dataclass(frozen=True)
class Batch:
    """Examples of one kind of data, read."""

    kind: str
    examples: list[Example]

    def pin_memory(self) -> "Batch":
        """With sounds and pictures in memory from which a GPU reads on its own; the DataLoader asks for it."""
        return self._changed(Tensor.pin_memory)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """With features and pictures on a device. Waveforms stay, for front ends read them on the CPU."""
        return self if device.type == "cpu" else self._changed(lambda t: t.to(device, non_blocking=non_blocking))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        def changed(segment: Segment) -> Segment:
            if isinstance(segment, Sound) and not segment.is_waveform:
                return Sound(change(segment.values))
            return replace(segment, views=change(segment.views)) if isinstance(segment, Seen) else segment

        examples = [replace(one, content=[changed(segment) for segment in one.content]) for one in self.examples]
        return Batch(self.kind, examples)


class KindBatches:
    """One kind of data in batches by their number, epoch after epoch: padded or packed.

    Padded, a batch is of examples of similar length. Packed, each example stands in one pack (best-fit decreasing), and
    no pack is trained on before it is certified; an example that training makes longer than it is counted for may take
    its pack over the budget.

    Raises:
        LabError: no examples, one that takes more tokens than a padded batch may have, one that is longer than the
            language model can keep apart in a pack, or what `PackedEpochs` refuses.
    """

    def __init__(self, data: SampleExamples, model: OmniModel, options: BatchOptions, *, seed: int) -> None:
        self._data, self._seed = data, seed
        self.lengths = [data.num_tokens(index, model) for index in range(len(data))]
        if not self.lengths:
            raise LabError("there is no example to train on; expected at least one")
        longest = int(np.argmax(self.lengths))
        self._packs: PackedEpochs | None = None
        self._certified = ""
        if options.packed:
            check_longest(model.language_model, self.lengths[longest] - 1, f"example {data.ids[longest]!r}")
            self._packs = PackedEpochs(
                # The end stands in no row: it is only ever a label.
                lengths=[length - 1 for length in self.lengths],
                budget=options.tokens,
                seed=seed,
                ids=data.ids,
            )
            return
        if self.lengths[longest] > options.tokens:
            raise LabError(
                f"example {data.ids[longest]!r} takes {self.lengths[longest]} tokens, more than {options.tokens}; "
                "allow more tokens, choose a projector that gives fewer, or leave it out"
            )
        self._size = options.size or max(1, round(options.tokens / (sum(self.lengths) / len(self.lengths))))
        self._epoch = (0, self._drawn(0))

    def _drawn(self, epoch: int) -> list[list[int]]:
        return bucketed_epoch(self.lengths, batch_size=self._size, seed=self._seed, epoch=epoch)

    @property
    def statistics(self) -> PackingStatistics:
        """Of the packs."""
        assert self._packs is not None
        return self._packs.statistics

    def certify(self, model: OmniModel, precision: str) -> PackingCertificate | None:
        """The certificate of the shortest examples of the first pack, the same one again where there are too few.

        The packs with the longest example and with the most are probed whole. None where batches are padded. A leak is
        refused, as `PackingCertificate.require` names it.
        """
        if self._packs is None:
            return None

        def examples(chosen: Int[ndarray, " in_pack"]) -> list[Example]:
            return [self._data.example(int(index), model) for index in chosen]

        shortest = examples(np.resize(self._packs.pack(0)[::-1], NUM_SAMPLES))
        # One after the other: the pictures of a pack may be large.
        packs = map(examples, self._packs.extremes)
        certificate = certify(model, shortest, precision=precision, packs=packs).require()
        self._certified = certificate.attention
        return certificate

    def indices(self, number: int) -> list[int]:
        """The examples of a batch."""
        if self._packs is not None:
            return [int(index) for index in self._packs.pack(number)]
        epoch, place = divmod(number, len(self._epoch[1]))
        if epoch != self._epoch[0]:
            self._epoch = (epoch, self._drawn(epoch))
        return self._epoch[1][place]

    def read(self, number: int, model: OmniModel) -> list[Example]:
        """A batch's examples, changed at random where training does so."""
        rng = np.random.default_rng([self._seed, number])
        return [self._data.training_example(index, model, rng) for index in self.indices(number)]

    def loss(self, model: OmniModel, examples: list[Example]) -> AnswerLoss:
        """Losses of a batch, one an example; of a pack with the attention that was certified before."""
        if self._packs is None:
            loss: AnswerLoss = model(examples)
            return loss
        if not self._certified:
            raise LabError("these packs are not certified; certify them before they are trained on")
        return model.packed(examples, attention=self._certified).loss

    def costs(self, number: int) -> tuple[int, int]:
        """Tokens of a batch without padding, and the pictures and frames that it shows."""
        chosen = self.indices(number)
        return sum(self.lengths[i] for i in chosen), sum(map(self._data.shown_frames, chosen))

    def padding_share(self, numbers: Iterable[int] | None = None) -> float:
        """Share of the positions of some batches that are padding; of the first epoch's where None."""
        if self._packs is not None:
            return 0.0
        return padding_share(self.lengths, self._drawn(0) if numbers is None else [self.indices(n) for n in numbers])


class StageBatches:
    """The batches of a stage by number, each of one kind of data.

    The batches of each kind are exact to rounding and their order is drawn; each kind goes through epochs of its own,
    no example twice in one (what does not fill a last padded batch is left out). `before` counts the batches of each
    kind that stages before it saw: it goes on in the epochs where they stopped, so that no example is seen a second
    time because a stage began anew.

    Raises:
        LabError: a kind of data that is not there or empty, or an example that alone has more tokens than a batch.
    """

    def __init__(
        self,
        data: Mapping[str, SampleExamples],
        model: OmniModel,
        stage: Stage,
        options: BatchOptions,
        *,
        seed: int,
        accumulate: int = 1,
        before: Mapping[str, int],
    ) -> None:
        self.of_kind: dict[str, KindBatches] = {}
        for kind in stage.mixing_shares:
            examples = choose(data, kind, "kind of data")
            if not len(examples):
                raise LabError(f"stage {stage.name!r} has no example of {kind!r} to train on; keep at least one")
            self.of_kind[kind] = KindBatches(examples, model, options, seed=seed)
        self.kinds = mixture(stage.mixing_shares, stage.length() * accumulate, seed=seed)
        self.seen = Counter(before)
        """Batches of each kind that this stage and those before it saw."""
        self._places: list[tuple[str, int]] = []
        for kind in self.kinds:
            self._places.append((kind, self.seen[kind]))
            self.seen[kind] += 1

    def __len__(self) -> int:
        return len(self.kinds)

    def indices(self, number: int) -> tuple[str, list[int]]:
        """The kind of data and the examples of a batch."""
        kind, own = self._places[number]
        return kind, self.of_kind[kind].indices(own)

    def read(self, number: int, model: OmniModel) -> Batch:
        """A batch, the same for the same number in whatever process; of the model, no weight is looked at."""
        kind, own = self._places[number]
        return Batch(kind, self.of_kind[kind].read(own, model))

    def loss(self, model: OmniModel, batch: Batch) -> AnswerLoss:
        """Losses of a batch."""
        return self.of_kind[batch.kind].loss(model, batch.examples)

    def certify(self, model: OmniModel, precision: str) -> dict[str, PackingCertificate]:
        """The packing certificate of each kind of data; none where batches are padded. A leak is refused."""
        made = {kind: own.certify(model, precision) for kind, own in self.of_kind.items()}
        return {kind: certificate for kind, certificate in made.items() if certificate}

    def costs(self) -> tuple[int, int]:
        """Language-model tokens and decoded frames of all batches, padding left out."""
        counted = [self.of_kind[kind].costs(own) for kind, own in self._places]
        return sum(tokens for tokens, _ in counted), sum(frames for _, frames in counted)

    def padding_share(self) -> float:
        """Share of the positions computed that are padding, the mean over all batches."""
        return sum(self.of_kind[kind].padding_share([own]) for kind, own in self._places) / len(self)
