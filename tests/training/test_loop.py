import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss
from lab.paths import repository_root
from lab.study.ablation import load_ablation
from lab.training import loop
from lab.training.cell import cell_stages
from lab.training.checkpoints import Checkpoint, TrainingRecord
from lab.training.loop import TrainingOptions, has_fast_bfloat16, open_accelerator, peak_memory_bytes, train
from lab.training.parameters import OmniParameters
from tests.parts.tiny_models import heard, hearing_model
from tests.training.runs import Regression, counted


def options(**changes: object) -> TrainingOptions:
    return TrainingOptions(**{"precision": "float32", **changes})  # type: ignore[arg-type]


def run(model: nn.Module, loss_of: Any, steps: int = 10, **given: Any) -> TrainingRecord:
    """At a learning rate of 0.05 that falls a little with each step."""
    arguments = {"learning_rates": rates, "options": options(), **given}
    return train(model, loss_of, arguments.pop("options"), steps=steps, **arguments)


def rates(step: int) -> list[float]:
    return [0.05 / (1 + step / 100)]


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_each_step_is_taken_once_and_the_loss_falls():
    model = Regression()
    steps: list[int] = []
    seen: list[tuple[int, float]] = []
    model.trained[1].p = 0.0
    record = run(model, counted(model.loss_of_step, steps), 60, on_step=lambda *point: seen.append(point))
    assert steps == list(range(60))
    assert seen == list(enumerate(record.losses))
    assert sum(record.losses[-10:]) < 0.2 * sum(record.losses[:10])
    assert record.learning_rates == [rates(step)[0] for step in range(60)]
    assert record.seconds > 0
    assert record.peak_memory_bytes > 1e6
    assert not model.training


def test_a_long_answer_weighs_more_than_a_short_one():
    weight = nn.Linear(1, 1)

    def loss(step: int) -> AnswerLoss:
        # (1 + 9) / (1 + 4), not the mean of 1 / 1 and 9 / 4.
        return AnswerLoss(weight(torch.zeros(2, 1))[:, 0] * 0 + torch.tensor([1.0, 9.0]), torch.tensor([1, 4]))

    assert run(weight, loss, 1).losses == [2.0]


def test_one_step_is_the_optimisers_own_with_the_gradient_clipped():
    model, reference = Regression().eval(), Regression().eval()
    model.trained[1].p = reference.trained[1].p = 0.0
    settings = options(max_grad_norm=0.01, weight_decay=0.1, betas=(0.5, 0.6))
    parameters = list(reference.trained.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1, betas=(0.5, 0.6))
    answer = reference.loss_of_step(0)
    (answer.loss.sum() / 8).backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters))
    assert norm > 0.01
    for parameter in parameters:
        parameter.grad *= 0.01 / (norm + 1e-6)
    optimizer.step()
    run(model, model.loss_of_step, 1, options=settings)
    for found, expected in zip(model.trained.parameters(), parameters, strict=True):
        torch.testing.assert_close(found, expected)
    # Seen in the gradient itself: AdamW's first step hides its size.
    total = math.sqrt(sum(float(p.grad.square().sum()) for p in model.trained.parameters()))
    assert total == pytest.approx(0.01, rel=1e-3)


def test_norms_and_biases_decay_as_other_weights_do():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    nn.init.constant_(model[1].bias, 1.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    # A loss that depends on none of them: what is left of a weight is the decay's doing.
    run(model, lambda step: AnswerLoss(sum(p.sum() * 0 for p in model.parameters())[None], torch.ones(1)), 1)
    shares = [float((now.detach() / old).mean()) for now, old in zip(model.parameters(), before, strict=True)]
    assert shares == pytest.approx([1 - 0.05 * options().weight_decay] * 4)


@pytest.mark.parametrize(("rung", "most"), [("cpu", 0.0136), ("paper", 0.1)])
def test_decay_takes_little_off_a_weight_over_a_whole_run(rung, most):
    taken = []
    for study in sorted(path.stem for path in (repository_root() / "ablations").glob("[a-z]*.py")):
        ablation = load_ablation(study)
        for row in ablation.rows:
            cell = ablation.resolve(row.key, rung)
            totals = Counter({"all": cell.steps * cell.learning_rate})
            if isinstance(cell, OmniParameters):
                totals = Counter()
                for stage in cell_stages(cell):
                    totals.update({part: stage.steps * stage.peak(part) for part in stage.trained})
            if row.key != "small_rates" or rung == "cpu":  # rates that no large model is trained with
                taken.append(max(totals.values()) * cell.weight_decay)
    assert max(taken) == pytest.approx(most)


def test_gradients_below_the_norm_are_left_alone():
    model = Regression()
    run(model, model.loss_of_step, 1, options=options(max_grad_norm=1e9))
    assert math.sqrt(sum(float(p.grad.square().sum()) for p in model.trained.parameters())) > 0.1


class Killed(BaseException):
    """What a test kills a run with."""


def sitting(
    checkpoint: Path | None, *, killed_at: int | None = None, steps: list[int] | None = None
) -> tuple[Regression, TrainingRecord | None]:
    torch.manual_seed(5)
    model = Regression()
    torch.manual_seed(5)

    def on_step(step: int, loss: float) -> None:
        if step == killed_at:
            raise Killed

    asked = counted(model.loss_of_step, [] if steps is None else steps)
    kept = Checkpoint(path=checkpoint, key="cell") if checkpoint else None
    try:
        return model, run(model, asked, options=options(checkpoint_every=3), checkpoint=kept, on_step=on_step)
    except Killed:
        return model, None


@pytest.mark.parametrize("killed_at", [[3], [5], [8], [3, 7], [4, 4, 8]])
def test_a_run_that_was_killed_ends_bit_equal_to_one_that_was_not(tmp_path, killed_at):
    model, record = sitting(None)
    checkpoint = tmp_path / "cell.safetensors"
    for step in killed_at:
        sitting(checkpoint, killed_at=step)
    torch.rand(7)  # somebody else's use of the generator between two sittings
    steps: list[int] = []
    resumed, resumed_record = sitting(checkpoint, steps=steps)
    assert equal(weights(model), weights(resumed))
    assert resumed_record.losses == record.losses
    assert resumed_record.learning_rates == record.learning_rates
    assert steps == list(range(killed_at[-1] // 3 * 3, 10))


def test_seconds_are_those_of_all_sittings(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    checkpoint = tmp_path / "cell.safetensors"
    sitting(checkpoint, killed_at=8)  # starts at 0; checkpoints of 3 and 6 steps at 10 and 20
    _, record = sitting(checkpoint)  # goes on at 30; a checkpoint of 9 steps at 40; ends at 50
    assert record.seconds == 20 + (50 - 30)


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    checkpoint = tmp_path / "cell.safetensors"
    sitting(checkpoint, killed_at=1)
    assert not checkpoint.exists()
    assert equal(weights(sitting(checkpoint)[0]), weights(sitting(None)[0]))


def test_a_joined_model_resumes_bit_equal_and_keeps_its_language_model(tmp_path):
    def joined(killed_at: int | None, checkpoint: Path | None) -> list[torch.Tensor] | None:
        model = hearing_model(positions="time_aligned")
        before = weights(model.language_model)

        def loss(step: int) -> AnswerLoss:
            if step == killed_at:
                raise Killed
            return model(heard([9, 4], [[0, 1], [2]], seed=step))

        try:
            kept = Checkpoint(path=checkpoint, key="cell") if checkpoint else None
            run(model, loss, 6, options=options(checkpoint_every=2), checkpoint=kept)
        except Killed:
            return None
        assert equal(before, weights(model.language_model))
        return weights(model)

    checkpoint = tmp_path / "cell.safetensors"
    joined(5, checkpoint)
    assert equal(joined(None, checkpoint), joined(None, None))


LENGTHS = [([9, 4], [[0, 1, 3, 2, 2], [2]]), ([5, 12], [[], [1]]), ([7, 7], [[3], [0, 0, 1]])]


@pytest.mark.parametrize("packed", [False, True])
def test_batches_of_one_step_train_as_one_large_batch(packed):
    examples = [heard(frames, answers, seed=number) for number, (frames, answers) in enumerate(LENGTHS)]

    def trained(batches: list, accumulate: int) -> tuple[list[torch.Tensor], TrainingRecord, nn.Module]:
        model = hearing_model(train_language_model=True)

        def loss(number: int) -> AnswerLoss:
            return model.packed(batches[number]).loss if packed else model(batches[number])

        before = weights(model)
        return before, run(model, loss, 1, options=options(accumulate=accumulate, max_grad_norm=0.1)), model

    _, parts, in_parts = trained(examples, 3)
    before, whole, at_once = trained([[one for batch in examples for one in batch]], 1)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-6)
    assert not equal(before, weights(at_once))
    for found, expected in zip(in_parts.parameters(), at_once.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_layers_that_are_computed_anew_give_the_same_gradients(packed, frozen):
    def gradients(anew: bool) -> tuple[list[torch.Tensor], int]:
        model, calls = hearing_model(train_language_model=not frozen), []
        if frozen:
            # As a stage freezes it.
            for module in model.language_model.modules():
                module.__dict__["train"] = lambda mode=True: None
        if packed:
            with torch.no_grad():
                model.packed(heard(*LENGTHS[0]))  # the first time a model is tried, and passed through more often
        for layer in model.language_model.model.layers:
            layer.self_attn.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))

        def loss(step: int) -> AnswerLoss:
            examples = heard(*LENGTHS[0], seed=step)
            return model.packed(examples).loss if packed else model(examples)

        run(model, loss, 2, options=options(gradient_checkpointing=anew))
        assert not any(module.training for module in model.modules())
        with torch.no_grad():
            model(heard(*LENGTHS[0]))
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None], len(calls)

    kept, once = gradients(False)
    anew, twice = gradients(True)
    assert kept
    assert equal(kept, anew)
    # Two layers: in two steps forward, in two steps again, and in the last look.
    assert (once, twice) == (2 * 2 + 2, 2 * 2 * 2 + 2)


class Drawn:
    """Rows by the number of their batch."""

    def __init__(self, refused: int | None = None) -> None:
        self.refused = refused

    def __call__(self, number: int) -> torch.Tensor:
        if number == self.refused:
            raise LabError(f"recording {number} cannot be read")
        return torch.randn(4, 3, generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize("workers", [0, 2])
def test_whoever_reads_the_batches_changes_nothing(tmp_path, workers):
    def trained(checkpoint: Path | None, killed_at: int | None = None, **reading: object) -> list[torch.Tensor] | None:
        model = Regression()
        torch.manual_seed(5)

        def on_step(step: int, loss: float) -> None:
            if step == killed_at:
                raise Killed

        settings = options(accumulate=2, checkpoint_every=3, workers=workers)
        loss = model.loss_of_step if not reading else model.loss_of_rows
        try:
            kept = Checkpoint(path=checkpoint, key="cell") if checkpoint else None
            run(model, loss, options=settings, checkpoint=kept, on_step=on_step, **reading)
        except Killed:
            return None
        return weights(model)

    expected = trained(None)
    assert equal(trained(None, batches=Drawn()), expected)
    checkpoint = tmp_path / "cell.safetensors"
    trained(checkpoint, killed_at=7, batches=Drawn())
    assert equal(trained(checkpoint, batches=Drawn()), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_said_in_one_sentence_whoever_reads_it(workers):
    model = Regression()
    with pytest.raises(LabError) as raised:
        run(model, model.loss_of_rows, options=options(workers=workers), batches=Drawn(refused=3))
    assert str(raised.value) == "recording 3 cannot be read"


def test_training_launched_as_several_processes_is_refused(monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    with pytest.raises(LabError, match="training was launched as 2 processes; expected one"):
        open_accelerator(torch.device("cpu"), "float32")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_names_step_description_and_learning_rate(value):
    model = Regression()

    def loss(step: int) -> AnswerLoss:
        answer = model.loss_of_step(step)
        return AnswerLoss(answer.loss * (value if step == 2 else 1.0), answer.num_tokens)

    expected = f"the loss is {value} at step 2 of Conv-GMLP n = 8, seed 1, learning rate 0.049"
    with pytest.raises(LabError, match=expected):
        run(model, loss, describe="Conv-GMLP n = 8, seed 1")


def test_gradient_that_is_not_finite_stops_the_run_before_it_spoils_the_weights():
    model = Regression()
    before = weights(model)

    def loss(step: int) -> AnswerLoss:
        answer = model.loss_of_step(step)
        infinite_slope = (model.trained[0].weight.sum() * 0).sqrt()
        return AnswerLoss(answer.loss + infinite_slope, answer.num_tokens)

    with pytest.raises(LabError, match=r"the gradient's norm is nan at step 0 of this run, learning rate 0.05"):
        run(model, loss)
    assert equal(before, weights(model))


@pytest.mark.parametrize(("describe", "named"), [("row 3", "row 3"), ("", "the model")])
def test_nothing_to_train_is_refused(describe, named):
    model = Regression().requires_grad_(False)
    with pytest.raises(LabError, match=f"nothing to train in {named}: every part is frozen"):
        run(model, model.loss_of_step, describe=describe)


def test_a_run_without_steps_is_refused():
    with pytest.raises(LabError, match="steps is 0; expected at least 1"):
        run(Regression(), Regression().loss_of_step, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_steps": -1}, "warmup_steps is -1; expected at least 0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; expected at least 0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0; expected a positive number"),
        ({"betas": (0.9, 1.0)}, r"betas is \(0.9, 1.0\); expected two numbers from 0 to below 1"),
        ({"checkpoint_every": -1}, r"checkpoint_every is -1; expected 0 \(never\)"),
        ({"precision": "float16"}, "unknown precision .float16..*choose one of: auto, bfloat16, float32"),
        ({"accumulate": 0}, "accumulate is 0; expected at least 1 batch a step"),
        ({"workers": -1}, r"workers is -1; expected 0 \(none\), a number of processes, or None"),
    ],
)
def test_option_outside_its_range_is_refused(changes, message):
    with pytest.raises(LabError, match=message):
        options(**changes)


@pytest.mark.parametrize(
    ("precision", "fast", "expected"),
    [
        ("float32", True, torch.float32),
        ("bfloat16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_products_are_in_bfloat16_where_asked_for_or_fast(monkeypatch, precision, fast, expected):
    monkeypatch.setattr(loop, "has_fast_bfloat16", lambda device: fast)
    model = Regression()
    seen = []
    model.trained[2].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run(model, model.loss_of_step, 1, options=options(precision=precision))
    assert seen == [expected]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_is_fast_on_a_cpu_with_instructions_for_it(monkeypatch, supported):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert has_fast_bfloat16(torch.device("cpu")) is supported
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert has_fast_bfloat16(torch.device("cpu")) is False


def test_bfloat16_is_not_taken_for_fast_where_nobody_can_say(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert has_fast_bfloat16(torch.device("cpu")) is False
    assert has_fast_bfloat16(torch.device("meta")) is False


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_that_a_gpu_emulates_is_not_fast(monkeypatch, supported):
    def is_supported(including_emulation: bool = True) -> bool:
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert has_fast_bfloat16(torch.device("cuda")) is supported


def test_peak_memory_holds_what_was_once_taken():
    size = 64 << 20
    before = peak_memory_bytes(torch.device("cpu"))
    held = torch.ones(size, dtype=torch.uint8)
    assert peak_memory_bytes(torch.device("cpu")) >= max(before, held.numel())
