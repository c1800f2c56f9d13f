import torch

from standins.models.contrastive import NUM_BUCKETS, CaptionTower, buckets


def test_a_caption_is_its_words_and_their_letter_triples():
    assert len(buckets("ox")) == 1 + 2  # <ox>: the word; <ox, ox>
    assert set(buckets("An ox.")) == set(buckets("an")) | set(buckets("ox"))
    assert all(0 <= bucket < NUM_BUCKETS for bucket in buckets("a whole sentence"))


def test_words_with_a_common_beginning_share_buckets_and_others_do_not():
    shared = set(buckets("snowman")) & set(buckets("snowboarder"))
    assert len(shared) == 3  # <sn, sno, now
    assert not set(buckets("cat")) & set(buckets("dog"))


def test_each_caption_of_a_batch_is_embedded_as_if_alone():
    torch.manual_seed(0)
    tower = CaptionTower(output_size=5).eval()
    captions = ["a red apple", "", "ox"]
    together = tower(captions)
    assert together.shape == (3, 5)
    assert torch.allclose(together, torch.cat([tower([caption]) for caption in captions]), atol=1e-6)


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    tower = CaptionTower(output_size=5)
    tower(["a red apple", "ox"]).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in tower.parameters())
