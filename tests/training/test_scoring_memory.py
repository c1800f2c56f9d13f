"""What scoring takes, against small models that really score: the most bytes that live at once, weights aside."""

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, GPT2Config

from lab.errors import LabError
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.omni_model import Example
from lab.training.language_models import text_model
from lab.training.packed_losses import losses_in_packs
from lab.training.saved_bytes import PRECISIONS
from lab.training.scoring import ScoringOptions, answer_losses
from lab.training.scoring_memory import scoring_bytes
from tests.training.test_memory import ALPHABET, LARGER, SMALL, language_config


class LiveBytes(TorchDispatchMode):
    """Adds up what operations give memory to, until it is freed."""

    def __init__(self, own: set[int]) -> None:
        super().__init__()
        self._own, self._known = own, weakref.WeakSet[Any]()
        self._live = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self._own and storage not in self._known:
                    self._known.add(storage)
                    weakref.finalize(storage, self._freed, storage.nbytes())
                    self._live += storage.nbytes()
                    self.peak = max(self.peak, self._live)
        return result

    def _freed(self, size: int) -> None:
        self._live -= size


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("size", [SMALL, LARGER], ids=["small", "larger"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("tokens", "answer"), [(64, 60), (64, 5), (256, 250), (256, 20)])
def test_a_pack_takes_what_a_small_model_takes_in_scoring(kind, size, precision, tokens, answer, monkeypatch):
    torch.manual_seed(0)
    # In inference mode, where operations are not taken apart, autocast keeps no cast weights; frozen ones neither.
    model = AutoModelForCausalLM.from_config(language_config(kind, size)).eval().requires_grad_(False)
    scorer = LanguageModel("tiny", model, CharacterCodec(alphabet=ALPHABET), "0")
    example = Example(content=[[1] * (tokens - answer - 1)], answer=[2] * answer)
    options = ScoringOptions(budget_tokens=tokens, precision=precision)
    live = LiveBytes({t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]})
    # Without inference mode, which hides the insides of operations.
    monkeypatch.setattr("lab.training.scoring.losses_in_packs", losses_in_packs.__wrapped__)
    with torch.no_grad(), live:
        reads = text_model(scorer)
        tokens_of = [reads.num_tokens(example) - 1]
        answer_losses(reads, lambda places: [example], tokens_of, options, ["a"], scorer="tiny")
    # An end is scored with the answer.
    counted = scoring_bytes(model, PRECISIONS[precision], tokens=tokens, answer_tokens=answer + 1)
    assert counted == pytest.approx(live.peak, rel=0.15)


def test_a_form_without_formula_is_named():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(LabError, match=r"unknown form of language model for the formulas: 'gpt2'; choose one of:"):
        scoring_bytes(model, PRECISIONS["float32"], tokens=4, answer_tokens=2)
