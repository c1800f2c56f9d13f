"""The loss filter of the Baichuan-Omni report's fine-tuning data: mean +- one standard deviation, and what rivals it.

The paper keeps what lies within one standard deviation of a Gaussian fitted to a pretrained model's losses, and tells
neither what that is worth nor whether it was fitted to all data or to each set. Here a known share of the training
instructions is faulty, in the ways that it names, so that a filter's precision and recall can be counted; and as many
instructions removed at random say what removing alone does.
"""

from lab.paper.claims import Comparison
from lab.study.ablation import Ablation, Column, Reported, Row, Rung, Trial
from lab.study.instruction_preparation import prepare_instructions as prepare

__all__ = ["ablation", "contrasts", "prepare"]

WIDTHS = {"gaussian_05": 0.5, "gaussian_15": 1.5, "gaussian_2": 2.0, "gaussian_3": 3.0}

ablation = Ablation(
    name="loss_filter",
    paper="Baichuan-Omni technical report (arXiv 2410.08565), section 3, supervised fine-tuning, loss filter",
    claim="Instructions whose loss lies within one standard deviation of the mean fine-tune a model better than all of "
    "them, and better than as many drawn at random.",
    notebook="loss_filter",
    seeds=(0, 1, 2),
    # Sources, steps, pack and learning rate were chosen on the development split, by no filter against the oracle.
    base={
        "instructions": "bigbench:plurals,past,questions,negations,wikidata+chatterbot",
        "test_instructions": "bigbench:plurals,past,questions,negations,wikidata",
        "num_training": 2400,
        "num_test": 300,
        "max_tokens": 160,
        "fault_share": 0.3,
        "fault_seed": 0,
        "scorer": "smollm2_135m",
        "loss_filter": "none",
        "k": 1.0,
        "fitted_by": "corpus",
        "num_choices": 4,
        "measure_dev": False,
        "language_model": "character",
        "pretraining_steps": 5500,
        "steps": 600,
        "budget_tokens": 400,
        "learning_rate": 2e-3,
        "warmup_steps": 30,
        "weight_decay": 0.01,
        "checkpoint_every": 200,
        "precision": "auto",
        "device": "auto",
    },
    rungs=(
        Rung(
            name="cpu",
            description="a small rung: instructions of BIG-bench and chatterbot-corpus, scored by SmolLM2-135M; a "
            "character language model of 1.3M parameters, fine-tuned, two CPU cores; not the paper's scale",
        ),
        Rung(
            name="gpu",
            description="one GPU: 50,000 instructions of UltraChat, Qwen2.5-0.5B scores and is fine-tuned; not the "
            "paper's scale",
            workers=1,
            changes={
                "instructions": "hub:HuggingFaceH4/ultrachat_200k:default:train_sft",
                "test_instructions": "hub:HuggingFaceH4/ultrachat_200k:default:train_sft",
                "num_training": 50_000,
                "num_test": 1000,
                "max_tokens": 1024,
                "scorer": "Qwen/Qwen2.5-0.5B",
                "language_model": "Qwen/Qwen2.5-0.5B",
                "steps": 1500,
                "budget_tokens": 16_384,
                "learning_rate": 1e-5,
                "warmup_steps": 50,
                "checkpoint_every": 500,
                "precision": "bfloat16",
                "device": "cuda",
            },
        ),
        Rung(
            name="paper",
            description="600,000 pairs and a 7B language model, as the paper has them; its data is not public and its "
            "learning rate and steps are not found, so these are ours",
            workers=1,
            changes={
                "instructions": "hub:allenai/tulu-3-sft-mixture",
                "test_instructions": "hub:allenai/tulu-3-sft-mixture",
                "num_training": 600_000,
                "num_test": 2000,
                "max_tokens": 4096,
                "scorer": "Qwen/Qwen2.5-7B",
                "language_model": "Qwen/Qwen2.5-7B",
                "steps": 8000,
                "budget_tokens": 65_536,
                "learning_rate": 1e-5,
                "warmup_steps": 200,
                "checkpoint_every": 500,
                "precision": "bfloat16",
                "device": "cuda",
            },
        ),
        Rung(
            name="smoke",
            description="the whole path in minutes, trained for a few steps: its numbers say nothing",
            recorded=False,
            changes={
                "instructions": "chatterbot",
                "test_instructions": "chatterbot",
                "num_training": 120,
                "num_test": 16,
                "scorer": "character",
                "pretraining_steps": 60,
                "steps": 4,
                "warmup_steps": 1,
                "checkpoint_every": 0,
            },
        ),
    ),
    rows=(
        Row(key="none", label="Baseline: no filter", changes={}),
        Row(key="gaussian_1", label="Gaussian, k = 1 (the paper's)", changes={"loss_filter": "gaussian"}),
        Row(key="random", label="Control: as many at random as k = 1", changes={"loss_filter": "random"}),
        *(
            Row(key=key, label=f"Gaussian, k = {k:g}", changes={"loss_filter": "gaussian", "k": k})
            for key, k in WIDTHS.items()
        ),
        Row(
            key="gaussian_by_source",
            label="Gaussian, k = 1, fitted by source",
            changes={"loss_filter": "gaussian", "fitted_by": "source"},
        ),
        Row(key="gaussian_low", label="Gaussian, low losses alone", changes={"loss_filter": "gaussian_low"}),
        Row(key="gaussian_high", label="Gaussian, high losses alone", changes={"loss_filter": "gaussian_high"}),
        Row(key="log_gaussian", label="Gaussian of log losses", changes={"loss_filter": "log_gaussian"}),
        Row(key="median_mad", label="Median and its deviation", changes={"loss_filter": "median_mad"}),
        Row(key="ifd", label="IFD: with over without the prompt", changes={"loss_filter": "ifd"}),
        Row(key="oracle", label="Control: the planted faults removed", changes={"loss_filter": "oracle"}),
    ),
    columns=(
        Column(
            metric="test_accuracy", label="test accuracy", unit="%", better="higher", scale=100, interval="error_rate"
        ),
        Column(metric="test_chance", label="by guessing", unit="%", better="higher", scale=100),
        Column(metric="test_loss", label="test loss", unit="nats a token", better="lower"),
        Column(metric="removal_precision", label="faulty of the removed", unit="%", better="higher", scale=100),
        Column(metric="removal_recall", label="removed of the faulty", unit="%", better="higher", scale=100),
        Column(metric="share_removed", label="removed", unit="%", better="lower", scale=100),
        Column(metric="share_faulty_left", label="faulty of the kept", unit="%", better="lower", scale=100),
        Column(metric="lm_tokens", label="LM tokens in training", unit="M", better="lower", scale=1e-6),
        Column(metric="training_seconds", label="training", unit="s", better="lower"),
        Column(metric="peak_memory_bytes", label="peak memory", unit="GB", better="lower", scale=1e-9),
    ),
    reported=(Reported(row="gaussian_1", metric="test_accuracy", value=None, source="not found"),),
    trial=Trial(parameter="steps", values=(2, 22), changes={"warmup_steps": 0}),
)

# Fixed before any test result was seen: a difference of less than two points of accuracy is taken for none.
contrasts = tuple(
    Comparison(label=label, baseline=baseline, candidate=candidate, smallest_effect=0.02)
    for label, baseline, candidate in (
        ("the paper's filter against none", "none", "gaussian_1"),
        ("the paper's filter against as many removed at random", "random", "gaussian_1"),
        ("fitted to each source by itself, against no filter", "none", "gaussian_by_source"),
        ("the planted faults removed, against no filter", "none", "oracle"),
    )
)
