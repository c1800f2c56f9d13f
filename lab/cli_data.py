"""The `lab data` commands: training data built from recipes. As in `lab.cli`, no logic, and imports inside."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lab.errors import LabError

data_app = typer.Typer(help="Training data built from recipes: filtered, deduplicated, packed.", no_args_is_help=True)


@data_app.command("build")
def data_build(
    recipe: Annotated[Path, typer.Argument(help="A recipe file (TOML), such as recipes/chatterbot.toml.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the rows (default: data/NAME in mlruns/).")] = None,
    engine: Annotated[str, typer.Option(help="local (processes of this machine) or ray (a Ray cluster).")] = "local",
    workers: Annotated[int | None, typer.Option(help="Shards at once (default: one a core).")] = None,
    ray: Annotated[str, typer.Option("--ray", metavar="HOST:PORT", help="With --engine ray: that cluster.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe, say what is to do, run nothing.")
    ] = False,
) -> None:
    """Build the rows of a recipe, from the cache where a step was done before; a build that was killed goes on."""
    from lab.data.recipes.card import page
    from lab.data.recipes.recipe import read_recipe
    from lab.data.recipes.run import build, plan

    if ray and engine != "ray":
        raise LabError("--ray is the address for --engine ray; give both")
    if ray:
        from lab.study.clusters import check_ray

        check_ray(ray, 0)
    declared = read_recipe(recipe)
    if dry_run:
        for name, state in plan(declared):
            typer.echo(f"{name:30}  {state}")
        return
    folder, card = build(declared, out=out, engine=engine, workers=workers, address=ray)
    typer.echo(page(card))
    typer.echo(f"rows and card: {folder}")


@data_app.command("card")
def data_card(
    folder: Annotated[Path, typer.Argument(help="A folder that `lab data build` made.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Print the card of built data: what went in, what each step dropped and why, licences, hashes, versions."""
    from lab.data.recipes.card import page, read_card

    card = read_card(folder)
    typer.echo(json.dumps(card, indent=1, ensure_ascii=False) if as_json else page(card).rstrip())
