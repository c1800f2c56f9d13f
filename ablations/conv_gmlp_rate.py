"""Figure 6 of the Baichuan-Omni report: how far Conv-GMLP can shorten the audio before the error grows.

The paper's sweep confounds rate with size: Conv-GMLP has 3 (n d)^2 parameters. The capacity control is as large as
Conv-GMLP at each rate and sees only the pooled frame.
"""

from lab.paper.claims import Contrast
from lab.paper.ledger.cells import reported
from lab.study.ablation import Ablation, Column, Row, Rung, Trial
from lab.training.parameters import SpeechParameters

RATES = (2, 4, 8)


def rows(projector: str, label: str, *, main: bool, rates: tuple[int, ...] = RATES, **changes: object) -> list[Row]:
    """One row a rate; dear rows (cost grows with the projector's parameters) are started first."""
    return [
        Row(
            key=f"{projector}_{rate}",
            label=f"{label}, n = {rate}",
            changes={"projector": projector, "downsample_rate": rate, **changes},
            main=main,
            cost=1.0 + rate * (projector in ("conv_gmlp", "mean_pool_gmlp")),
        )
        for rate in rates
    ]


ablation = Ablation(
    name="conv_gmlp_rate",
    paper="Baichuan-Omni technical report (arXiv 2410.08565), section 4.5, figure 6",
    claim="Pooling loses audio information when the projector downsamples hard; Conv-GMLP keeps more of it, so that "
    "its error grows less from n = 2 to n = 8 than mean pooling's.",
    notebook="conv_gmlp_rate",
    seeds=(0, 1, 2),
    base=SpeechParameters(),
    rungs=(
        Rung(
            name="cpu",
            description="a small rung: Whisper-tiny.en, frozen, and a character language model of 1.3M parameters, a "
            "few hours of speech, two CPU cores; not the paper's scale",
        ),
        Rung(
            name="espeak",
            description="the cpu rung's models on synthetic speech (eSpeak NG, 12,000 sentences), trained for longer; "
            "hours for all cells; not the paper's scale",
            changes={
                "corpus": "espeak",
                "num_utterances": 12_000,
                "pretraining_steps": 14_000,
                "steps": 2000,
                "batch_size": 16,
                "num_beams": 5,
            },
        ),
        Rung(
            name="gpu",
            description="one GPU: Whisper-small trained with the projector, Qwen2.5-0.5B, LibriSpeech clean; not "
            "the paper's scale",
            workers=1,
            changes={
                "corpus": "hub:openslr/librispeech_asr:clean",
                "out_of_domain_corpus": "",
                "audio_encoder": "openai/whisper-small",
                "encoder_window": "padded",
                "train_encoder": True,
                "max_test_utterances": 0,
                "language_model": "Qwen/Qwen2.5-0.5B",
                "prompt": "Transcribe the speech.",
                "steps": 20000,
                "batch_size": 16,
                "learning_rate": 1e-4,
                "warmup_steps": 500,
                "num_time_masks": 0,
                "shift_windows": False,
                "checkpoint_every": 1000,
                "device": "cuda",
                "precision": "bfloat16",
            },
        ),
        Rung(
            name="paper",
            description="the paper's encoder and a 7B language model; its data, learning rate and number of steps are "
            "not found, so these are ours",
            workers=1,
            changes={
                "corpus": "hub:wenet-e2e/wenetspeech",
                "out_of_domain_corpus": "",
                "audio_encoder": "openai/whisper-large-v3",
                "encoder_window": "padded",
                "train_encoder": True,
                "max_test_utterances": 0,
                "language_model": "Qwen/Qwen2.5-7B",
                "prompt": "Transcribe the speech.",
                "steps": 100000,
                "batch_size": 64,
                "learning_rate": 1e-4,
                "warmup_steps": 2000,
                "num_time_masks": 0,
                "shift_windows": False,
                "checkpoint_every": 1000,
                "device": "cuda",
                "precision": "bfloat16",
                "normalizer": "chinese_characters",
            },
        ),
        Rung(
            name="smoke",
            description="the whole path in minutes, trained for a few steps: its numbers say nothing",
            recorded=False,
            changes={
                "corpus": "espeak",
                "num_utterances": 120,
                "out_of_domain_corpus": "",
                "pretraining_steps": 60,
                "steps": 4,
                "batch_size": 4,
                "warmup_steps": 1,
                "checkpoint_every": 0,
                "max_training_utterances": 32,
                "max_test_utterances": 8,
                "num_beams": 1,
            },
        ),
    ),
    rows=(
        *rows("conv_gmlp", "Conv-GMLP", main=True),
        *rows("mean_pool_mlp", "Mean pooling + MLP", main=True),
        *rows("mean_pool_gmlp", "Mean pooling + gated MLP of Conv-GMLP's size", main=True),
        # Conv-GMLP at n = 4 and 8 with the parameters that it has at n = 2 for d = 384 and an LM width of 192.
        *rows(
            "conv_gmlp_budget",
            "Conv-GMLP, parameters as at n = 2",
            main=False,
            rates=(4, 8),
            parameter_budget=1_918_656,
        ),
        *rows("frame_concat_mlp", "Frames concatenated + SwiGLU (Ultravox)", main=False),
        *rows("conv1d_mlp", "Strided convolution + MLP (SLAM-LLM)", main=False),
        *rows("q_former", "Windowed Q-Former (SALMONN)", main=False),
    ),
    columns=(
        Column(
            metric="test_character_error_rate",
            label="test CER",
            unit="%",
            better="lower",
            scale=100,
            interval="character_error_rate",
        ),
        Column(
            metric="test_word_error_rate",
            label="test WER",
            unit="%",
            better="lower",
            scale=100,
            interval="word_error_rate",
        ),
        Column(
            metric="out_of_domain_character_error_rate", label="CER, out of domain", unit="%", better="lower", scale=100
        ),
        Column(metric="test_loss", label="test loss", unit="nats a token", better="lower"),
        Column(metric="projector_parameters", label="projector size", unit="M parameters", better="lower", scale=1e-6),
        Column(metric="audio_tokens_per_second", label="LM tokens", unit="a second of audio", better="lower"),
        Column(
            metric="flops_per_audio_second",
            label="projector compute",
            unit="MFLOPs a second of audio",
            better="lower",
            scale=1e-6,
        ),
        Column(metric="training_seconds", label="training", unit="s", better="lower"),
        Column(metric="peak_memory_bytes", label="peak memory", unit="GB", better="lower", scale=1e-9),
    ),
    reported=reported(
        "figure_6",
        {
            **{f"conv_gmlp_{rate}": f"Conv-GMLP, n = {rate}" for rate in RATES},
            **{f"mean_pool_mlp_{rate}": f"Pooling, n = {rate}" for rate in RATES},
        },
        columns="Mean over the ASR sets",
        metric="test_word_error_rate",
        note="mean over its ASR sets, 1.5B audio LM",
    ),
    trial=Trial(parameter="steps", values=(1, 21), changes={"warmup_steps": 0}),
    golden={
        "max_training_utterances": 32,
        "max_test_utterances": 8,
        "max_out_of_domain_utterances": 4,
        "steps": 8,
        "warmup_steps": 1,
        "checkpoint_every": 0,
    },
)

# Fixed before any test result was seen: a difference of less than one point of CER is taken for none.
contrasts = (
    Contrast(
        label="the paper's claim",
        baseline="mean_pool_mlp",
        candidate="conv_gmlp",
        low_rate=2,
        high_rate=8,
        metric="character_error_rate",
        smallest_effect=0.01,
    ),
    Contrast(
        label="form alone, at equal size",
        baseline="mean_pool_gmlp",
        candidate="conv_gmlp",
        low_rate=2,
        high_rate=8,
        metric="character_error_rate",
        smallest_effect=0.01,
    ),
)
