"""What a stage of a vision study sees at every step: batches of about equal tokens, padded or packed.

Section 3 of the paper. A step's batch is of one kind of data and holds about the same number of language-model tokens
whatever the kind (unless a number of examples is asked for), so a mixing weight is a share of tokens, and no row is
padded to the length of another kind. Packed, a step is one pack of `batch_tokens` and nothing is padded at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.data.batching import batches_from, padding_share
from lab.data.mixture import mixture
from lab.data.packing import PackedEpochs
from lab.errors import LabError, choose
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.packed_models import packed_vision_answers
from lab.parts.vision_language_model import VisionLanguageModel
from lab.training.packed_batches import certify_pack
from lab.training.packing_certificate import PackingCertificate
from lab.training.packing_probes import VisionSample, vision_probe
from lab.training.stages import Stage
from lab.training.vision_data import VisionSplit


def check_batches(batch_tokens: int, batch_size: int, packed: bool) -> None:
    """Refuse batches that no stage has.

    Raises:
        LabError: fewer than one token, fewer than no examples, or a number of examples asked of packs.
    """
    if batch_tokens < 1 or batch_size < 0:
        raise LabError(f"batch_tokens and batch_size are {batch_tokens} and {batch_size}; expected at least 1 and 0")
    if packed and batch_size:
        raise LabError(
            f"batch_size is {batch_size}, but a step of a packed stage is as many examples as fit batch_tokens "
            f"({batch_tokens}); expected batch_size 0, or packed False"
        )


@dataclass
class StageBatches:
    """The batch of every step of a stage, the same for the same seed however often a run is interrupted.

    The steps of each kind of data are exact to rounding and their order is drawn; each kind goes through epochs of its
    own, no example twice in one (what does not fill a last padded batch is left out). `earlier` are the stages before
    it in a curriculum, on the same sources, batch tokens and seed: it goes on in each kind's epochs where they stopped,
    so that no example is seen a second time because a stage began anew.

    Raises:
        LabError: a kind of data that is not there, an example that alone has more than `batch_tokens`, a number of
            examples asked of packs, or earlier stages with other batch tokens or another seed.
    """

    sources: Mapping[str, VisionSplit]
    model: VisionLanguageModel
    stage: Stage
    batch_tokens: int
    seed: int
    batch_size: int = 0
    """Examples a step, where rows are to see equally many whatever their tokens; 0: as `batch_tokens` gives."""
    packed: bool = False
    """One pack a step (best-fit decreasing) instead of a padded batch."""
    earlier: Sequence["StageBatches"] = ()
    lengths: dict[str, list[int]] = field(init=False)
    kinds: list[str] = field(init=False)

    def __post_init__(self) -> None:
        assert self.stage.steps is not None
        shares = self.stage.mixing_shares
        own = (self.batch_tokens, self.batch_size, self.packed, self.seed)
        if any((e.batch_tokens, e.batch_size, e.packed, e.seed) != own for e in self.earlier):
            raise LabError(
                f"stage {self.stage.name!r} has batch_tokens {self.batch_tokens} and seed {self.seed}, and a stage "
                "before it has others; give all stages of a curriculum the same"
            )
        check_batches(self.batch_tokens, self.batch_size, self.packed)
        self._splits = {kind: choose(self.sources, kind, "kind of data") for kind in shares}
        self.lengths = {
            kind: [split.num_tokens(i, self.model) for i in range(len(split))] for kind, split in self._splits.items()
        }
        self._sizes = {kind: self._batch_size(kind) for kind in shares}
        # The end stands in no row: it is only ever a label.
        self._packs = {
            kind: PackedEpochs(lengths=[n - 1 for n in self.lengths[kind]], budget=self.batch_tokens, seed=self.seed)
            for kind in (shares if self.packed else ())
        }
        self._attention = "auto"
        self.kinds = mixture(shares, self.stage.steps, seed=self.seed)
        self._done = {kind: sum(stage.kinds.count(kind) for stage in self.earlier) for kind in shares}
        self._next: dict[str, tuple[int, object]] = {}

    def _batch_size(self, kind: str) -> int:
        lengths = self.lengths[kind]
        if max(lengths) > self.batch_tokens:
            raise LabError(
                f"an example of {kind!r} takes {max(lengths)} tokens, more than batch_tokens ({self.batch_tokens})"
            )
        return self.batch_size or max(1, round(self.batch_tokens / (sum(lengths) / len(lengths))))

    def certify(self, *, precision: str) -> dict[str, PackingCertificate]:
        """The packing certificate of each kind of data, on samples of its first pack; none where batches are padded.

        Raises:
            LabError: a leak, as `PackingCertificate.require` names it.
        """
        found = {}
        for kind, packs in self._packs.items():
            samples = lambda i, kind=kind: VisionSample(  # noqa: E731
                question=self._splits[kind].question(i, self.model), answer=self._answer(kind, i)
            )
            found[kind] = certify_pack(
                self.model, packs, samples, lambda some: vision_probe(self.model, some), precision=precision
            )
            self._attention = found[kind].attention
        return found

    def indices(self, step: int) -> tuple[str, list[int]]:
        """The kind of data and the examples of a step."""
        kind = self.kinds[step]
        number = self._done[kind] + self.kinds[:step].count(kind)
        if self.packed:
            return kind, [int(i) for i in self._packs[kind].pack(number)]
        expected, batches = self._next.get(kind, (-1, None))
        if number != expected or batches is None:
            batches = batches_from(self.lengths[kind], batch_size=self._sizes[kind], seed=self.seed, first_step=number)
        chosen = next(batches)  # type: ignore[call-overload]
        self._next[kind] = (number + 1, batches)
        return kind, chosen

    def loss(self, step: int) -> AnswerLoss:
        """Losses of the batch of one step."""
        kind, chosen = self.indices(step)
        questions = [self._splits[kind].question(i, self.model) for i in chosen]
        answers = [self._answer(kind, i) for i in chosen]
        if self.packed:
            return packed_vision_answers(self.model, questions, answers, attention=self._attention).loss
        return self.model(questions, answers)

    def _answer(self, kind: str, index: int) -> list[int]:
        split = self._splits[kind]
        return split.answer_ids(split.examples[index].answer, self.model)

    def costs(self) -> tuple[int, int]:
        """Language-model tokens and decoded frames of all steps, padding left out."""
        tokens = frames = 0
        for step in range(len(self.kinds)):
            kind, chosen = self.indices(step)
            tokens += sum(self.lengths[kind][i] for i in chosen)
            split = self._splits[kind]
            frames += sum(len(split.store[split.examples[i].id].seconds) for i in chosen)
        self._next.clear()
        return tokens, frames

    def padding_share(self) -> float:
        """Share of the positions computed that are padding."""
        if self.packed:
            return 0.0
        chosen = [self.indices(step) for step in range(len(self.kinds))]
        self._next.clear()
        padded = [padding_share(self.lengths[kind], [batch]) for kind, batch in chosen]
        return sum(padded) / len(padded)
