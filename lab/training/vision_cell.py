"""What one cell of a vision study is made of: its data, its model and its stages, from its parameters.

Sections 2 and 3 of the paper. The image branch passes its pictures through the visual projector; the video branch
passes video, and the images that it is trained on first or beside, through the video projector, which starts afresh or
from an image projector that was trained before it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from lab.data.sources import SAMPLES_VERSION, open_samples, sources_sha256
from lab.data.splits import Split
from lab.data.video import Sight
from lab.errors import LabError, choose
from lab.parts.language_models import LanguageModel
from lab.parts.omni_model import OmniModel
from lab.parts.vision_encoders import VisionEncoder
from lab.parts.visual_projectors import VisualProjector, build_visual_projector
from lab.parts.visual_tokens import Branch, VisualTokens
from lab.training.curricula import CURRICULA, IMAGE, VIDEO, curriculum_stages
from lab.training.language_models import text_writer
from lab.training.parameters import SightedParameters, VisionParameters
from lab.training.samples import SampleExamples, Tiling
from lab.training.stages import Stage

IMAGE_BRANCH = "image_branch"
# Of the training data, from which channels are standardised.
_STATISTICS_VIEWS = 2000


def cell_branch(parameters: VisionParameters) -> Branch:
    """The projector that a cell studies: the video branch's where it has video."""
    return "video_projector" if parameters.videos else "visual_projector"


def cell_kinds(parameters: VisionParameters) -> set[str]:
    """The kinds of data that a cell trains on, those of its stages.

    Raises:
        LabError: an unknown curriculum.
    """
    legs = choose(CURRICULA, parameters.curriculum, "curriculum")
    return {kind for leg in legs for kind in leg.kinds} | ({IMAGE} if parameters.image_branch_steps else set())


def vision_cell_data(
    parameters: VisionParameters, encoder: VisionEncoder, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, SampleExamples]:
    """The splits of a cell: `image_text` and `video_text` as its curriculum needs them, `dev` and `test`.

    `dev` and `test` are of the videos where the cell has some, else of the images; `test_source` names another source
    whose test split is taken.

    Raises:
        LabError: an unknown source or curriculum, or a curriculum whose data the cell does not have.
    """
    kinds = cell_kinds(parameters)
    sources = {IMAGE: parameters.images, VIDEO: parameters.videos}
    counts = {IMAGE: parameters.num_images, VIDEO: parameters.num_videos}
    for kind in sorted(kinds):
        if not sources[kind]:
            raise LabError(f"curriculum {parameters.curriculum!r} needs {kind}, but this cell names no such source")
    write = text_writer(parameters.language_model)
    opened = partial(open_cell_split, parameters, encoder, write=write, progress=progress)
    data = {kind: opened(sources[kind], "train", counts[kind]) for kind in sorted(kinds)}
    asked = parameters.videos or parameters.images
    data["test"] = opened(parameters.test_source or asked, "test", parameters.num_test)
    if parameters.measure_dev:
        data["dev"] = opened(asked, "dev", parameters.num_test)
    return data


def open_cell_split(
    parameters: VisionParameters,
    encoder: VisionEncoder,
    source: str,
    split: Split,
    count: int,
    *,
    write: Callable[[str], str],
    progress: Callable[[int, int], None] | None = None,
) -> SampleExamples:
    """The first samples of one side of a source, seen as a cell sees them; `write` as the language model reads.

    Raises:
        LabError: as `open_samples` and `SampleExamples.kept_by`.
    """
    sight = Sight(
        frame_size=parameters.frame_size,
        frames_per_second=parameters.frames_per_second,
        max_frames=parameters.max_frames,
    )
    samples, left_out = open_samples(source, split, count)
    examples = SampleExamples(
        samples=samples,
        name=source.partition(":")[0].replace("/", "_"),
        write=write,
        sight=sight,
        tiling=Tiling(max_tiles=parameters.max_tiles, fit=parameters.fit, unpad=parameters.unpad),
        branch=cell_branch(parameters),
        left_out=left_out,
    )
    key = f"{SAMPLES_VERSION} {source} {sight} {sources_sha256(source)}"
    return examples.kept_by(encoder, key=key, features=not parameters.train_encoder, progress=progress)


def cell_projector(parameters: SightedParameters, hidden_size: int, output_size: int) -> VisualProjector:
    """A projector of a cell, afresh.

    Raises:
        LabError: as `build_visual_projector`.
    """
    options = projector_options(parameters)
    return build_visual_projector(parameters.projector, hidden_size=hidden_size, output_size=output_size, **options)


def build_vision_model(
    parameters: VisionParameters,
    encoder: VisionEncoder,
    language_model: LanguageModel,
    data: Mapping[str, SampleExamples],
) -> OmniModel:
    """The model of a cell, its projectors afresh; seed torch before.

    Features are standardised by those of the training data; a trained encoder's are left as they are.
    """
    statistics = {}
    stores = [split.store for kind, split in data.items() if kind in (IMAGE, VIDEO) and split.store is not None]
    if not parameters.train_encoder and parameters.max_frames:
        mean, std = stores[-1].mean_and_std(max_rows=_STATISTICS_VIEWS, spread=True)
        statistics = {"feature_mean": torch.from_numpy(mean), "feature_std": torch.from_numpy(std)}

    def tokens() -> VisualTokens:
        made = VisualTokens(
            projector=cell_projector(parameters, encoder.hidden_size, language_model.hidden_size),
            marks_places=parameters.marks_places,
            newline=parameters.newline,
            **statistics,
        )
        if made.marks is not None and language_model.place_marks is not None:
            # What the language model was told of place and time in its pretraining, as it was told it.
            made.marks.load_state_dict({"weight": language_model.place_marks})
        return made

    return OmniModel(
        visual_projector=tokens(),
        video_projector=tokens(),
        language_model=language_model,
        vision_encoder=encoder if parameters.train_encoder else None,
        positions="sequential",
    )


def projector_options(parameters: SightedParameters) -> dict[str, Any]:
    """What a cell's projector is built with besides its widths; one that keeps every patch pools none."""
    pooled = {"pool_size": parameters.pool_size, "padding": parameters.padding}
    return {**(pooled if parameters.projector != "mlp" else {}), **parameters.projector_options}


def cell_stages(parameters: VisionParameters) -> tuple[Stage, ...]:
    """The stages of a cell: an image branch where the video projector starts from it, then those of the curriculum.

    Raises:
        LabError: as `curriculum_stages`; or a start of the video projector that the cell has not the steps for.
    """
    start, steps = parameters.video_projector_start, parameters.image_branch_steps
    if (start == "image_projector") != (steps > 0) or (steps and not (parameters.videos and parameters.images)):
        raise LabError(
            f"video_projector_start is {start!r} and image_branch_steps {steps}; expected a cell with images and "
            "videos and steps above 0 for 'image_projector', 0 steps for 'afresh'"
        )
    stages = curriculum_stages(
        parameters.curriculum,
        steps=parameters.steps,
        first_share=parameters.first_share,
        image_share=parameters.image_share,
        **_trained(parameters, cell_branch(parameters)),
    )
    if not steps:
        return stages
    before = Stage(
        name=IMAGE_BRANCH,
        paper="section 3, image-language branch, before the video branch; steps and learning rates are this study's",
        trained=tuple(_trained(parameters, "visual_projector")["learning_rates"]),
        data={IMAGE: 1.0},
        steps=steps,
        schedule="cosine",
        **_trained(parameters, "visual_projector"),
    )
    follows = replace(stages[0], starts_from=(before.name,), starts_as={"video_projector": "visual_projector"})
    return (before, follows, *stages[1:])


def stages_to_train(parameters: VisionParameters) -> tuple[Stage, ...]:
    """The stages of a cell; none where nothing is seen and the language model is frozen.

    What that one answers by itself is a baseline.

    Raises:
        LabError: as `cell_stages`.
    """
    stages = cell_stages(parameters)
    return stages if parameters.max_frames or parameters.train_language_model else ()


def image_branch_data(data: Mapping[str, SampleExamples]) -> dict[str, dict[str, SampleExamples]]:
    """What the image branch sees otherwise: its pictures pass through the visual projector."""
    return {IMAGE_BRANCH: {IMAGE: replace(data[IMAGE], branch="visual_projector")}} if IMAGE in data else {}


def _trained(parameters: VisionParameters, branch: Branch) -> dict[str, Any]:
    rates: dict[str, float] = {branch: parameters.learning_rate}
    if parameters.train_language_model:
        rates["language_model"] = parameters.language_model_learning_rate
    if parameters.train_encoder:
        rates["vision_encoder"] = parameters.encoder_learning_rate
    every = ("visual_projector", "video_projector", "language_model", "vision_encoder")
    return {"learning_rates": rates, "frozen": tuple(part for part in every if part not in rates)}
