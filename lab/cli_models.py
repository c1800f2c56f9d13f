"""The command that scores data by a model. As in `lab.cli`, no logic."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lab.errors import LabError

models_app = typer.Typer()


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
