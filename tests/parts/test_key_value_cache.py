import torch
from transformers import Cache, DynamicCache

from lab.parts.decoding import AppendingLayer


def filled(cache, states):
    for layer, (keys, values) in enumerate(states):
        cache.update(keys, values, layer)
    return cache


def states(rows, tokens, layers=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randn(rows, 2, tokens, 4, generator=generator) for _ in range(2)) for _ in range(layers)]


def caches():
    ours = Cache(layer_class_to_replicate=AppendingLayer)
    return filled(ours, states(3, 5)), filled(DynamicCache(), states(3, 5))


def same(cache, reference):
    return all(
        torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
        for ours, theirs in zip(cache.layers, reference.layers, strict=True)
    )


def test_tokens_are_appended_as_in_transformers_own_past_the_room_that_was_made():
    cache, reference = (
        filled(Cache(layer_class_to_replicate=AppendingLayer), states(3, 5)),
        filled(DynamicCache(), states(3, 5)),
    )
    for step in range(150):
        filled(cache, states(3, 1, seed=step + 1))
        filled(reference, states(3, 1, seed=step + 1))
    assert cache.get_seq_length() == 155
    assert same(cache, reference)


def test_rows_are_kept_in_the_order_asked_for_and_go_on():
    cache, reference = (
        filled(Cache(layer_class_to_replicate=AppendingLayer), states(3, 5)),
        filled(DynamicCache(), states(3, 5)),
    )
    for rows in ([2, 0], [1]):
        cache.batch_select_indices(torch.tensor(rows))
        reference.batch_select_indices(torch.tensor(rows))
        assert same(cache, reference)
        filled(cache, states(len(rows), 3, seed=len(rows)))
        filled(reference, states(len(rows), 3, seed=len(rows)))
        assert same(cache, reference)
