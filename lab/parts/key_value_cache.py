"""A key-value cache that is written in place: transformers' own copies everything it holds at every step.

Axes: `rows` (utterances), `heads`, `tokens`, `head_dim`.
"""

from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_LEAST_ROOM = 64


class AppendingLayer(DynamicLayer):
    """Keys and values of one layer, in buffers with room for more tokens; `keys` and `values` are views of them."""

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

    def select(self, rows: Int[Tensor, " chosen"]) -> None:
        """Keep these rows, in this order."""
        length = self.get_seq_length()
        keys, values = self._buffers
        self._buffers = (keys.index_select(0, rows), values.index_select(0, rows))
        self._show(length)

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:, :, :length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def _grown(held: Tensor | None, new: Tensor, start: int, end: int) -> Tensor:
    """A buffer with half as much room again, so that growing costs little however long an answer gets."""
    rows, heads, _, head_dim = new.shape
    buffer = new.new_empty(rows, heads, end + max(_LEAST_ROOM, end // 2), head_dim)
    if held is not None and start:
        buffer[:, :, :start] = held
    return buffer


class AppendingCache(Cache):
    """The cache of a decoder all of whose layers attend to everything that their mask lets them."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=AppendingLayer)

    def select_rows(self, rows: Int[Tensor, " chosen"]) -> None:
        """Keep these rows, in this order."""
        for layer in self.layers:
            assert isinstance(layer, AppendingLayer)
            layer.select(rows)
