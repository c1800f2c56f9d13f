"""A key-value cache for beam search: written in place, and reordered only where the beams of an utterance differ.

transformers' own cache copies everything twice a step (it concatenates, and selects all rows); on two cores that was
two fifths of decoding. Axes: `rows` (utterances x beams), `heads`, `tokens`, `head_dim`.
"""

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_GROWTH = 64


class InPlaceLayer(DynamicLayer):
    """Keys and values of one layer, in buffers with room for `_GROWTH` more tokens; `keys` and `values` are views."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the new tokens and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = (key_states.new_empty(0), value_states.new_empty(0))
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if start == 0 or end > self._buffers[0].shape[-2]:
            held = (self.keys, self.values)
            self._buffers = (_grown(held[0], key_states, start, end), _grown(held[1], value_states, start, end))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        return self._show(end)

    def select(self, rows: Int[Tensor, " chosen"], *, shared: int = 0) -> None:
        """Keep these rows; the first `shared` tokens of every row are known to be those of the row that replaces it."""
        length = self.get_seq_length()
        for buffer in self._buffers:
            buffer[:, :, shared:length] = buffer[:, :, shared:length].index_select(0, rows)
        self._show(length)

    def take(self, rows: Int[Tensor, " chosen"]) -> None:
        """Keep these rows, of another number than before."""
        length = self.get_seq_length()
        keys, values = self._buffers
        self._buffers = (keys.index_select(0, rows), values.index_select(0, rows))
        self._show(length)

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:, :, :length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def _grown(held: Tensor | None, new: Tensor, start: int, end: int) -> Tensor:
    rows, heads, _, head_dim = new.shape
    buffer = new.new_empty(rows, heads, end + _GROWTH, head_dim)
    if held is not None and start:
        buffer[:, :, :start] = held
    return buffer


class BeamCache(Cache):
    """The cache of a decoder all of whose layers attend to everything before them."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=InPlaceLayer)

    def select_rows(self, rows: Int[Tensor, " chosen"], *, same_utterances: bool, prefix: int) -> None:
        """Keep these rows, repeats allowed.

        With `same_utterances` every row is replaced by one of its own utterance, so that the first `prefix` tokens,
        which its beams share, stay where they are.
        """
        if same_utterances and torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return
        for layer in self.layers:
            assert isinstance(layer, InPlaceLayer)
            if same_utterances:
                layer.select(rows, shared=prefix)
            else:
                layer.take(rows)
