"""`python -m standins`: the commands that train the project's own small models and say how good they are."""

import json
import sys
from typing import Annotated

import torch
import typer

from lab.data.splits import SPLITS
from lab.errors import LabError, choose
from standins.models.character_model import DEFAULT_STEPS, describe, pretrained_character_model
from standins.models.tower_quality import tower_quality
from standins.models.vision_pretraining import pretrained_vision_tower

app = typer.Typer(
    help="Train the project's own small models, and say how good they are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def pretrain(
    steps: Annotated[int | None, typer.Option(help="Training steps; the studies' own number where left out.")] = None,
) -> None:
    """Pretrain the character language model of the cpu rung (or open the cached one) and say what it was trained on."""
    torch.set_num_threads(1)  # its batches are too small to share between two
    folder = pretrained_character_model(
        steps=DEFAULT_STEPS if steps is None else steps,
        progress=lambda done, total, loss: typer.echo(f"step {done} of {total}, loss {loss:.3f}"),
    )
    typer.echo(json.dumps({"folder": str(folder), **describe(folder)}, indent=2))


@app.command()
def tower(
    name: Annotated[str, typer.Argument(help="siglip_tiny, siglip_small or timm:NAME, as after own: in a study.")],
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 96,
    split: Annotated[str, typer.Option(help="Whose pictures it is scored on: dev or test.")] = "test",
) -> None:
    """Train one of the project's own vision encoders (or open the cached one) and say how good it is."""
    scored_on = choose({s: s for s in SPLITS}, split, "split")  # before minutes of training
    pretrained_vision_tower(
        name,
        image_size=image_size,
        progress=lambda done, total, loss: typer.echo(f"step {done} of {total}, loss {loss:.3f}"),
    )
    quality = tower_quality(name, image_size=image_size, split=scored_on)
    typer.echo(f"{'':9}  right caption of {quality.choices}  topic")
    for label in ("trained", "untrained", "chance"):
        score = getattr(quality, label)
        typer.echo(f"{label:9}  {score.caption_accuracy:18.1%}  {score.topic_accuracy:5.1%}")
    typer.echo(f"on {quality.caption_pictures} and {quality.topic_pictures} pictures of things never trained on")


if __name__ == "__main__":
    try:
        app()
    except LabError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
