"""What a cell's projector costs: parameters, tokens that the language model reads, and operations (section 4.5)."""

from lab.evaluation.answering import FRAMES_PER_SECOND
from lab.parts.omni_model import OmniModel
from lab.training.samples import SampleExamples


def hearing_costs(model: OmniModel) -> dict[str, float]:
    """Of the audio projector: parameters, language-model tokens and floating-point operations a second of audio."""
    assert model.audio_projector is not None
    projector = model.audio_projector.projector
    return {
        "projector_parameters": float(sum(parameter.numel() for parameter in projector.parameters())),
        "audio_tokens_per_second": FRAMES_PER_SECOND / projector.downsample_rate,
        "flops_per_audio_second": projector.flops_per_audio_second(FRAMES_PER_SECOND),
    }


def seeing_costs(model: OmniModel, data: SampleExamples) -> dict[str, float]:
    """Of a split's projector: parameters, visual tokens a frame and a question, frames a question."""
    part = model.parts()[data.branch or "visual_projector"]
    seen = [data.shown_frames(i) for i in range(len(data))]
    visual = [data.num_visual_tokens(i, model) for i in range(len(data))]
    return {
        "projector_parameters": float(sum(parameter.numel() for parameter in part.parameters())),
        "visual_tokens_per_frame": sum(visual) / sum(seen) if sum(seen) else 0.0,
        "visual_tokens_per_question": sum(visual) / len(visual),
        "frames_per_question": sum(seen) / len(seen),
    }
