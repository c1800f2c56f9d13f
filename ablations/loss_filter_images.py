"""The loss filter of the Baichuan-Omni report's fine-tuning data, on its other half: questions about pictures.

As `loss_filter`, and nearer to the paper in one thing: the model whose losses are filtered is the one that is
fine-tuned. It is trained first, on pictures of its own with clean questions; then a known share of the questions that
it is fine-tuned on is faulty, in the ways that the paper names.
"""

from ablations._filters import FILTER_COLUMNS, filter_rows
from lab.paper.claims import Comparison
from lab.study.ablation import Ablation, Reported, Rung, Trial
from lab.training.parameters import PictureTuningParameters

_HUB = {
    "images": "conversation@hub:liuhaotian/LLaVA-Instruct-150K",
    "test_source": "image_choices@hub:lmms-lab/MMBench_EN:default:dev",
    "num_test": 2000,
    "image_size": 384,
    "stride": 0,
    "marks_places": False,
    "learning_rate": 1e-3,
    "language_model_learning_rate": 1e-5,
    "checkpoint_every": 500,
    "precision": "bfloat16",
    "device": "cuda",
}

ablation = Ablation(
    name="loss_filter_images",
    paper="Baichuan-Omni technical report (arXiv 2410.08565), section 3, supervised fine-tuning, loss filter",
    claim="Questions about pictures whose loss lies within one standard deviation of the mean fine-tune a model better "
    "than all of them, and better than as many drawn at random.",
    notebook="loss_filter_images",
    seeds=(0, 1, 2),
    # Its sizes, steps and the share of faults were chosen on the development split, by no filter against the oracle.
    base=PictureTuningParameters(),
    rungs=(
        Rung(
            name="cpu",
            description="a small rung: stills composed of cut-out pictures, seen by EfficientNet-Lite0, frozen; a "
            "character language model of 1.3M parameters, trained on other stills, scores and is fine-tuned, two CPU "
            "cores; not the paper's scale",
        ),
        Rung(
            name="gpu",
            description="one GPU: LLaVA's instructions, SigLIP-base, frozen, and Qwen2.5-0.5B, trained on half of "
            "them; not the paper's scale",
            workers=1,
            changes={
                **_HUB,
                "num_pretraining": 50_000,
                "num_training": 50_000,
                "max_tokens": 2048,
                "vision_encoder": "google/siglip-base-patch16-384",
                "language_model": "Qwen/Qwen2.5-0.5B-Instruct",
                "scorer_steps": 2500,
                "steps": 1500,
                "budget_tokens": 16_384,
                "warmup_steps": 50,
            },
        ),
        Rung(
            name="paper",
            description="600,000 pairs, the paper's encoder, frozen, and a 7B language model; the paper's data is not "
            "public and its steps and learning rates are not found, so these are ours",
            workers=1,
            changes={
                **_HUB,
                "num_pretraining": 600_000,
                "num_training": 600_000,
                "max_tokens": 4096,
                "vision_encoder": "google/siglip-so400m-patch14-384",
                "language_model": "Qwen/Qwen2.5-7B-Instruct",
                "scorer_steps": 10_000,
                "steps": 8000,
                "budget_tokens": 65_536,
                "warmup_steps": 200,
            },
        ),
        Rung(
            name="smoke",
            description="the whole path in minutes, trained for a few steps: its numbers say nothing",
            recorded=False,
            changes={
                "num_pretraining": 48,
                "num_training": 48,
                "num_test": 18,
                "pretraining_steps": 60,
                "scorer_steps": 4,
                "steps": 4,
                "warmup_steps": 1,
            },
        ),
    ),
    rows=filter_rows(fitted_by="kind of question", without="picture and question"),
    columns=FILTER_COLUMNS,
    reported=(Reported(row="gaussian_1", metric="test_accuracy", value=None, source="not found"),),
    trial=Trial(parameter="steps", values=(2, 22), changes={"warmup_steps": 0}),
    golden={
        "num_pretraining": 48,
        "num_training": 48,
        "num_test": 18,
        "scorer_steps": 8,
        "steps": 8,
        "warmup_steps": 1,
        "checkpoint_every": 0,
    },
)

# Fixed before any test result was seen: a difference of less than two points of accuracy is taken for none.
contrasts = tuple(
    Comparison(label=label, baseline=baseline, candidate=candidate, smallest_effect=0.02)
    for label, baseline, candidate in (
        ("the paper's filter against none", "none", "gaussian_1"),
        ("the paper's filter against as many removed at random", "random", "gaussian_1"),
        ("fitted to each kind of question by itself, against no filter", "none", "gaussian_by_source"),
        ("the planted faults removed, against no filter", "none", "oracle"),
    )
)
