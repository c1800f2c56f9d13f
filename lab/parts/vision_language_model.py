"""The model that joins the parts for pictures: visual tokens, question and answer in the language model's space.

Section 2 of the paper. Axes as in `lab.parts.visual_tokens` and `lab.parts.joined_sequences`. A row is the visual
tokens, the question, the answer's start and the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss, answer_loss, pad_left
from lab.parts.language_models import LanguageModel
from lab.parts.vision_encoders import VisionEncoder
from lab.parts.visual_tokens import Seen, VisualTokens

Branch = Literal["visual_projector", "video_projector"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a model is asked: what it sees, through which branch's projector, and the question as token ids."""

    seen: Seen
    question_ids: Sequence[int]
    branch: Branch


class VisionLanguageModel(nn.Module):
    """Visual and video projector, language model, and the vision encoder where it is trained with them.

    A frozen encoder stays outside: its features are computed once. What trains is decided by a stage
    (`lab.training.stages.apply_stage` on `parts()`), not here.

    Raises:
        LabError: a projector whose tokens are not as wide as the language model's.
    """

    def __init__(
        self,
        *,
        visual_projector: VisualTokens,
        video_projector: VisualTokens,
        language_model: LanguageModel,
        encoder: VisionEncoder | None = None,
    ) -> None:
        super().__init__()
        for name, branch in (("visual", visual_projector), ("video", video_projector)):
            if branch.projector.output_size != language_model.hidden_size:
                raise LabError(
                    f"the {name} projector gives tokens {branch.projector.output_size} wide; language model "
                    f"{language_model.name!r} takes {language_model.hidden_size}"
                )
        self.visual_projector = visual_projector
        self.video_projector = video_projector
        self.language_model = language_model.model
        self.vision_encoder = encoder
        self.codec = language_model.codec

    def parts(self) -> dict[str, nn.Module]:
        """The parts by the names that stages use."""
        parts: dict[str, nn.Module] = {
            "visual_projector": self.visual_projector,
            "video_projector": self.video_projector,
            "language_model": self.language_model,
        }
        return parts if self.vision_encoder is None else {**parts, "vision_encoder": self.vision_encoder}

    def start_video_projector_from_image(self) -> None:
        """Give the video projector the image projector's weights, place marks and feature statistics included.

        Raises:
            LabError: the two are not of one make.
        """
        try:
            self.video_projector.load_state_dict(self.visual_projector.state_dict())
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise LabError(f"the video projector cannot start from the image projector's weights: {said}") from error

    def view_grid(self, branch: Branch, view_shape: tuple[int, int, int]) -> tuple[int, int]:
        """Rows and columns of tokens that a branch's projector makes of one view, of features or of pixels."""
        part: VisualTokens = getattr(self, branch)
        grid = view_shape[:2] if self.vision_encoder is None else self.vision_encoder.grid
        return part.projector.output_grid(*grid)

    def visual_tokens(self, questions: Sequence[Question]) -> list[Float[Tensor, "tokens hidden_size"]]:
        """The visual tokens of each question."""
        views = [question.seen for question in questions]
        if self.vision_encoder is not None:
            views = self._encoded(views)
        tokens: list[Tensor] = [torch.empty(0)] * len(questions)
        for branch in ("visual_projector", "video_projector"):
            at = [i for i, question in enumerate(questions) if question.branch == branch]
            if at:
                for i, found in zip(at, getattr(self, branch)([views[i] for i in at]), strict=True):
                    tokens[i] = found
        return tokens

    def _encoded(self, samples: Sequence[Seen]) -> list[Seen]:
        assert self.vision_encoder is not None
        pixels = [sample.views for sample in samples if len(sample.views)]
        if not pixels:
            return list(samples)
        features = iter(self.vision_encoder(torch.cat(pixels)).split([len(views) for views in pixels]))
        return [replace(sample, views=next(features)) if len(sample.views) else sample for sample in samples]

    def forward(self, questions: Sequence[Question], answers: Sequence[Sequence[int]]) -> AnswerLoss:
        """Loss of each answer (token ids without start and end) given what is seen and asked."""
        return self.losses(self.visual_tokens(questions), questions, answers)

    def losses(
        self,
        visual_tokens: Sequence[Float[Tensor, "tokens hidden_size"]],
        questions: Sequence[Question],
        answers: Sequence[Sequence[int]],
    ) -> AnswerLoss:
        """As `forward`, with the visual tokens at hand; the same may stand in several rows."""
        texts = [
            [*question.question_ids, *self.codec.start_ids, *answer]
            for question, answer in zip(questions, answers, strict=True)
        ]
        device = next(self.language_model.parameters()).device
        embed = self.language_model.get_input_embeddings()
        flat = embed(torch.tensor([i for ids in texts for i in ids], device=device))
        words = flat.split([len(ids) for ids in texts])
        rows = [torch.cat([seen.to(flat.dtype), said]) for seen, said in zip(visual_tokens, words, strict=True)]
        joined = pad_left(rows, [torch.arange(len(row)) for row in rows])
        return answer_loss(self.language_model, joined, answers, end_id=self.codec.end_id)
