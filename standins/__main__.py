"""`python -m standins`: the commands that train the project's own small models."""

import json
import sys
from typing import Annotated

import torch
import typer

from lab.errors import LabError
from standins.models.character_model import DEFAULT_STEPS, describe, pretrained_character_model
from standins.models.vision_pretraining import pretrained_vision_tower

app = typer.Typer(
    help="Train the project's own small models.",
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
    name: Annotated[str, typer.Argument(help="siglip_tiny or timm:NAME, as after own: in a study.")],
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 96,
) -> None:
    """Train one of the project's own vision encoders (or open the cached one) and say where it lies."""
    folder = pretrained_vision_tower(
        name,
        image_size=image_size,
        progress=lambda done, total, loss: typer.echo(f"step {done} of {total}, loss {loss:.3f}"),
    )
    typer.echo(str(folder))


if __name__ == "__main__":
    try:
        app()
    except LabError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
