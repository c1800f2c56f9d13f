"""Table 8 of the Baichuan-Omni report: vision encoders, all trained the same way.

The paper compares SigLIP, InternViT and others; two of its rows are found. (InternViT-6B, its worst, needs code
from the hub and is not run.) No package holds weights of either, so the main rows compare what can be had everywhere:
EfficientNet-Lite0 with its ImageNet weights, and towers that the project trains itself on named pictures with SigLIP's
loss (`standins.models.vision_pretraining`). The paper's encoder is a row for the larger rungs.
"""

from ablations._vision import ACCURACY, COSTS, IMAGE_BASE, IMAGE_CPU, IMAGE_GOLDEN, NOTEBOOK, without
from lab.paper.claims import Comparison
from lab.paper.ledger.cells import printed, reported
from lab.study.ablation import Ablation, Row, Rung, Trial

ENCODERS = {
    "efficientnet_imagenet": ("EfficientNet-Lite0, ImageNet", "efficientnet_lite0"),
    "siglip_own": ("SigLIP of 1.1M parameters, trained here", "own:siglip_tiny"),
    "vit_own": ("ViT-Tiny of timm, trained here", "own:timm:vit_tiny_patch16_224"),
    "efficientnet_own": ("EfficientNet-Lite0, trained here", "own:timm:tf_efficientnet_lite0"),
}

ablation = Ablation(
    name="visual_encoder",
    paper="Baichuan-Omni technical report (arXiv 2410.08565), section 4.5, table 8",
    claim="The encoder's pretraining decides what the language model can be told: one that saw much more, and was "
    "trained to tell things apart, answers better than others of its size.",
    notebook=NOTEBOOK,
    seeds=(0, 1, 2),
    base=IMAGE_BASE,
    rungs=(
        Rung(name="cpu", description=IMAGE_CPU),
        *without("vision_encoder", overruled=("image_size", "stride")),
    ),
    rows=(
        *(Row(key=key, label=label, changes={"vision_encoder": encoder}) for key, (label, encoder) in ENCODERS.items()),
        Row(
            key="siglip_so400m",
            label="SigLIP-so400m, the paper's (from the hub)",
            # Its own size and patches: 96 pixels are no whole number of them.
            changes={"vision_encoder": "google/siglip-so400m-patch14-384", "image_size": 384, "stride": 0},
            main=False,
            cost=20,
        ),
    ),
    columns=(ACCURACY, *COSTS),
    reported=reported(
        "table_8",
        {"siglip_so400m": "siglip-so400m-patch14-384 (428M, 384 px)"},
        columns="Average",
        note=f"average over its image sets; InternViT-6B: {printed('table_8', 'InternViT-6B (5.9B)', 'Average')}",
    ),
    trial=Trial(parameter="steps", values=(2, 22), changes={"warmup_steps": 0}),
    golden=IMAGE_GOLDEN,
)

# Fixed before any test result was seen: a difference of less than two points of accuracy is taken for none.
contrasts = (
    Comparison(
        label="ImageNet against the project's own pictures, one network",
        baseline="efficientnet_own",
        candidate="efficientnet_imagenet",
        smallest_effect=0.02,
    ),
    Comparison(
        label="SigLIP against ViT, both trained here", baseline="vit_own", candidate="siglip_own", smallest_effect=0.02
    ),
)
