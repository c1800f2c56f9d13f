"""What a stage sees at every step: batches of about equal tokens, each of one kind of data by its share.

Section 3 of the paper. A step's batch is of one kind of data and holds about the same number of language-model tokens
whatever the kind (unless a number of examples is asked for), so a mixing weight is a share of tokens, and no row is
padded to the length of another kind. Packed, a step is one pack of `batch_tokens` and nothing is padded at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.data.batching import padding_share
from lab.data.mixture import mixture
from lab.errors import LabError, choose
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.omni_model import OmniModel
from lab.training.batches import PackedBatches, PaddedBatches
from lab.training.examples import Examples
from lab.training.packing_certificate import PackingCertificate
from lab.training.stages import Stage


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

    sources: Mapping[str, Examples]
    model: OmniModel
    stage: Stage
    batch_tokens: int
    seed: int
    batch_size: int = 0
    """Examples a step, where rows are to see equally many whatever their tokens; 0: as `batch_tokens` gives."""
    packed: bool = False
    """One pack a step (best-fit decreasing) instead of a padded batch."""
    precision: str = "auto"
    """The training's, in which packs are certified."""
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
        self._batches = {kind: self._open(choose(self.sources, kind, "kind of data")) for kind in shares}
        self.lengths = {kind: batches.lengths for kind, batches in self._batches.items()}
        self.kinds = mixture(shares, self.stage.steps, seed=self.seed)
        self._done = {kind: sum(stage.kinds.count(kind) for stage in self.earlier) for kind in shares}

    def _open(self, data: Examples) -> PaddedBatches | PackedBatches:
        if self.packed:
            return PackedBatches(data, self.model, budget=self.batch_tokens, seed=self.seed, precision=self.precision)
        return PaddedBatches(data, self.model, batch_size=self.batch_size, seed=self.seed, max_tokens=self.batch_tokens)

    def certificates(self) -> dict[str, PackingCertificate]:
        """The packing certificate of each kind of data; none where batches are padded.

        Raises:
            LabError: a leak, as `PackingCertificate.require` names it.
        """
        packs = {kind: one for kind, one in self._batches.items() if isinstance(one, PackedBatches)}
        return {kind: one.certificate for kind, one in packs.items()}

    def _number(self, step: int) -> tuple[str, int]:
        """The kind of data of a step, and how many of its batches came before."""
        kind = self.kinds[step]
        return kind, self._done[kind] + self.kinds[:step].count(kind)

    def indices(self, step: int) -> tuple[str, list[int]]:
        """The kind of data and the examples of a step."""
        kind, number = self._number(step)
        return kind, self._batches[kind].indices(number)

    def loss(self, step: int) -> AnswerLoss:
        """Losses of the batch of one step."""
        kind, number = self._number(step)
        return self._batches[kind].loss(number)

    def costs(self) -> tuple[int, int]:
        """Language-model tokens and decoded frames of all steps, padding left out."""
        tokens = frames = 0
        for step in range(len(self.kinds)):
            kind, chosen = self.indices(step)
            tokens += sum(self.lengths[kind][i] for i in chosen)
            frames += sum(self.sources[kind].shown_frames(i) for i in chosen)
        return tokens, frames

    def padding_share(self) -> float:
        """Share of the positions computed that are padding."""
        if self.packed:
            return 0.0
        chosen = [self.indices(step) for step in range(len(self.kinds))]
        padded = [padding_share(self.lengths[kind], [batch]) for kind, batch in chosen]
        return sum(padded) / len(padded)
