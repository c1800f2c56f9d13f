"""The scale of packed fine-tuning, against a small model that is really trained in a pack."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from lab.errors import LabError
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.study import scale_instructions
from lab.study.ablation import load_ablation
from lab.study.scale import scale
from lab.study.scale_table import table
from lab.training.instruction_data import scored_tokens
from lab.training.parameters import TextTuningParameters
from lab.training.saved_bytes import PRECISIONS
from tests.training.test_memory import ALPHABET, LARGER, SMALL, language_config

LENGTHS = (30, 22, 12)  # of the samples of the pack
ANSWERS = (10, 7, 4)  # tokens of each answer, without its end


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("something was fetched or pretrained")

    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", refuse)
    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.from_pretrained", refuse)


def trained(kind: str, size: dict[str, int], precision: str) -> tuple[int, int, int, int]:
    """Bytes of weights, gradients, optimiser and saved tensors of one step on one pack."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(language_config(kind, size)).train()
    part = LanguageModel("tiny", model, CharacterCodec(alphabet=ALPHABET), "0")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    examples = [
        Example(content=[[1] * (length - answer - 1)], answer=[2] * answer)
        for length, answer in zip(LENGTHS, ANSWERS, strict=True)
    ]
    cast = torch.autocast("cpu", torch.bfloat16, enabled=PRECISIONS[precision].autocast)
    with cast, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = OmniModel(language_model=part).packed(examples).loss.loss.sum()
    saved = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    kept.clear()
    loss.backward()
    optimizer.step()
    tensors = [*model.parameters(), *model.buffers()]
    states = [state for entry in optimizer.state.values() for state in entry.values()]
    gradients = sum(p.grad.numel() * p.grad.element_size() for p in model.parameters())
    weights = sum(t.numel() * t.element_size() for t in tensors)
    return weights, gradients, sum(state.numel() * state.element_size() for state in states), saved


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("size", [SMALL, LARGER], ids=["small", "larger"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_pack_takes_what_a_small_model_takes_in_training(kind, size, precision, monkeypatch):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(language_config(kind, size))
    monkeypatch.setattr(scale_instructions, "language_model_without_weights", lambda name: model)
    study = load_ablation("loss_filter")
    study = replace(study, base=replace(study.base, budget_tokens=sum(LENGTHS)))
    # An end is scored with each answer.
    scored = sum(ANSWERS) + len(ANSWERS)
    (part,) = scale(study, "cpu", ["none"], answer_tokens=scored, precision=precision).rows["none"].parts
    weights, gradients, optimizer, saved = trained(kind, size, precision)
    assert (part.weights, part.gradients, part.optimizer) == (weights, gradients, optimizer)
    assert part.saved.everything == pytest.approx(saved, rel=0.15)


def test_the_papers_rung_is_a_7b_model_and_packs_of_65536_tokens():
    found = scale(load_ablation("loss_filter"), "paper", "main")
    memory = found.rows["gaussian_1"]
    assert memory.parts[0].trained_parameters == 7_615_616_512
    assert memory.tokens == 65_536
    # As if all were answers: the logits alone are 65,536 x 152,064 numbers, twice, of 4 bytes.
    assert memory.logits == 2 * 4 * 65_536 * 152_064
    assert len({row.total for row in found.rows.values()}) == 1
    fewer = scale(load_ablation("loss_filter"), "paper", ["none"], answer_tokens=20_000).rows["none"]
    assert fewer.logits == 2 * 4 * 20_000 * 152_064
    assert fewer.total < memory.total
    written = table(found)
    assert "one pack of 65,536 tokens" in written
    assert "language model (M)" in written
    assert "Scoring before it: Qwen/Qwen2.5-7B (7,615.6 M parameters, 30.46 GB" in written
    # At the loss: logits of 4,096 answers in 2 bytes and in 4, log-probabilities in 4; embeddings in float32.
    assert 4096 * (10 * 152_064 + 4 * 3584) == 6_287_261_696
    assert "GB of weights), forward only, at most 6.29 GB besides, in packs of 4,096 tokens." in written
    assert "By stage of the paper" not in written


@pytest.mark.parametrize("rung", ["cpu", "gpu", "smoke"])
def test_other_rungs_are_counted_too(rung):
    assert 0 < scale(load_ablation("loss_filter"), rung, ["none"]).rows["none"].total < 80e9


def test_a_scorer_of_unknown_size_is_said_and_hinders_no_row():
    (note,) = scale(load_ablation("loss_filter"), "cpu", ["none"]).notes
    assert note.startswith("Scoring before it cannot be counted: unknown configuration")
    assert "'smollm2_135m'" in note


@pytest.mark.parametrize(("max_tokens", "tokens"), [(160, 1024), (1024, 1024), (4096, 4096)])
def test_no_instruction_that_may_be_trained_on_is_too_long_to_be_scored(max_tokens, tokens):
    assert scored_tokens(TextTuningParameters(max_tokens=max_tokens)) == tokens


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"answer_tokens": 70_000}, "answer_tokens is 70000; expected 1 to the pack's 65536"),
        ({"answer_tokens": 0}, "answer_tokens is 0"),
        ({"seconds": 3.0}, "seconds is 3, but a study of packed instructions has none"),
        ({"batch_size": 2}, "batch_size is 2, but a study of packed instructions has none"),
    ],
)
def test_what_no_pack_has_is_refused(asked, message):
    with pytest.raises(LabError, match=message):
        scale(load_ablation("loss_filter"), "paper", ["none"], **asked)
