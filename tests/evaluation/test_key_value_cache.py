import torch
from transformers import DynamicCache

from lab.evaluation.key_value_cache import BeamCache


def filled(cache, states):
    for layer, (keys, values) in enumerate(states):
        cache.update(keys, values, layer)
    return cache


def states(rows, tokens, layers=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randn(rows, 2, tokens, 4, generator=generator) for _ in range(2)) for _ in range(layers)]


def same(cache, reference):
    return all(
        torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
        for ours, theirs in zip(cache.layers, reference.layers, strict=True)
    )


def test_tokens_are_appended_as_in_transformers_own_past_the_room_that_was_made():
    cache, reference = filled(BeamCache(), states(3, 5)), filled(DynamicCache(), states(3, 5))
    for step in range(150):
        filled(cache, states(3, 1, seed=step + 1))
        filled(reference, states(3, 1, seed=step + 1))
    assert cache.get_seq_length() == 155
    assert same(cache, reference)


def test_rows_of_the_same_utterances_are_replaced_behind_the_shared_prefix():
    prefix = [tuple(t.repeat_interleave(2, dim=0) for t in pair) for pair in states(2, 5)]
    cache, reference = filled(BeamCache(), prefix), filled(DynamicCache(), prefix)
    for step, rows in enumerate(([0, 1, 2, 3], [1, 1, 3, 2], [1, 0, 2, 2])):
        filled(cache, states(4, 1, seed=step + 1))
        filled(reference, states(4, 1, seed=step + 1))
        cache.select_rows(torch.tensor(rows), same_utterances=True, prefix=5)
        reference.batch_select_indices(torch.tensor(rows))
        assert same(cache, reference)


def test_another_number_of_rows_is_taken_whole():
    cache, reference = filled(BeamCache(), states(3, 5)), filled(DynamicCache(), states(3, 5))
    for rows in ([0, 0, 2, 2], [3, 1]):
        cache.select_rows(torch.tensor(rows), same_utterances=False, prefix=5)
        reference.batch_select_indices(torch.tensor(rows))
        assert same(cache, reference)
