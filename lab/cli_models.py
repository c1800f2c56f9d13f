"""The commands that train the project's own small models and score data by them. As in `lab.cli`, no logic."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.errors import LabError, choose

models_app = typer.Typer()


@models_app.command()
def pretrain(
    steps: Annotated[int | None, typer.Option(help="Training steps; the studies' own number where left out.")] = None,
) -> None:
    """Pretrain the character language model of the cpu rung (or open the cached one) and say what it was trained on."""

    import torch

    from lab.training.character_model import DEFAULT_STEPS, describe, pretrained_character_model

    torch.set_num_threads(1)  # its batches are too small to share between two
    folder = pretrained_character_model(
        steps=DEFAULT_STEPS if steps is None else steps,
        progress=lambda done, total, loss: typer.echo(f"step {done} of {total}, loss {loss:.3f}"),
    )
    typer.echo(json.dumps({"folder": str(folder), **describe(folder)}, indent=2))


@models_app.command()
def score(
    source: Annotated[
        str, typer.Argument(help="Instructions: chatterbot, hub:NAME, a Parquet file; with --images pictures: stills.")
    ],
    out: Annotated[Path, typer.Option(help="A folder for the losses; given again, the same scoring goes on.")],
    model: Annotated[
        str | None, typer.Option(help="character, words, smollm2_135m, a hub name or a folder; left out: character.")
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Pictures with questions, by the pretrained model of loss_filter_images.")
    ] = False,
    rung: Annotated[str, typer.Option(help="Whose pretrained model scores pictures.")] = "cpu",
    limit: Annotated[int | None, typer.Option(help="Samples at most, of each source.")] = None,
    without_prompt: Annotated[
        bool, typer.Option("--without-prompt", help="Score answers without prompt and picture too, for the filter ifd.")
    ] = False,
    budget_tokens: Annotated[int, typer.Option(help="Tokens of a pack, and so of the longest sample.")] = 1024,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
) -> None:
    """Write the loss that a model has of every answer given its prompt (and picture), as loss filters read it."""
    from lab.training.packed_losses import ScoringOptions
    from lab.training.scored_sources import score_picture_source, score_source

    scoring = ScoringOptions(budget_tokens=budget_tokens, without_prompt=without_prompt, precision=precision)
    options: dict[str, Any] = {"options": scoring, "limit": limit, "device": device, "say": typer.echo}
    if images:
        from lab.study.ablation import load_ablation

        if model is not None:
            raise LabError(f"--model {model} cannot see pictures; leave it out, or leave out --images")
        parameters = load_ablation("loss_filter_images").resolve("none", rung)
        score_picture_source(source, out, parameters, **options)
    else:
        score_source(source, out, model=model or "character", **options)


@models_app.command()
def tower(
    name: Annotated[str, typer.Argument(help="siglip_tiny, siglip_small or timm:NAME, as behind own: in a study.")],
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 96,
    split: Annotated[str, typer.Option(help="Whose pictures it is scored on: dev or test.")] = "test",
) -> None:
    """Train one of the project's own vision encoders (or open the cached one) and say how good it is."""
    from lab.data.splits import SPLITS
    from lab.evaluation.vision_towers import tower_quality
    from lab.training.vision_pretraining import pretrained_vision_tower

    pretrained_vision_tower(
        name,
        image_size=image_size,
        progress=lambda done, total, loss: typer.echo(f"step {done} of {total}, loss {loss:.3f}"),
    )
    quality = tower_quality(name, image_size=image_size, split=choose({s: s for s in SPLITS}, split, "split"))
    typer.echo(f"{'':9}  right caption of {quality.choices}  topic")
    for label in ("trained", "untrained", "chance"):
        score = getattr(quality, label)
        typer.echo(f"{label:9}  {score.caption_accuracy:18.1%}  {score.topic_accuracy:5.1%}")
    typer.echo(f"on {quality.caption_pictures} and {quality.topic_pictures} pictures of things never trained on")
