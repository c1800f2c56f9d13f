"""The commands that evaluate models, score data by one, and ask one. As in `lab.cli`, no logic."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

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
    from lab.training.scored_sources import score_source
    from lab.training.scoring import ScoringOptions

    scoring = ScoringOptions(budget_tokens=budget_tokens, without_prompt=without_prompt, precision=precision)
    options: dict[str, Any] = {"options": scoring, "limit": limit, "device": device, "say": typer.echo}
    if images:
        from lab.study.ablation import load_ablation

        if model is not None:
            raise LabError(f"--model {model} cannot see pictures; leave it out, or leave out --images")
        parameters: Any = load_ablation("loss_filter_images").resolve("none", rung)
        score_source(source, out, model=parameters, **options)
    else:
        score_source(source, out, model=model or "character", **options)


class _InOrder(typer.core.TyperCommand):
    """A command whose repeated options are told in the order in which they were given, as `context.obj`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        ctx.obj = [parameter.name for parameter in given]
        return super().parse_args(ctx, args)


@models_app.command(cls=_InOrder)
def ask(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A run that kept a model, or the folder of a saved one.")],
    audio: Annotated[list[Path] | None, typer.Option(help="A sound; repeatable, as are the next three.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture.")] = None,
    video: Annotated[list[Path] | None, typer.Option(help="A video, or a folder of its frames.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="What is said or asked.")] = None,
    max_tiles: Annotated[int, typer.Option(help="Tiles of a picture or frame at most (AnyRes); 1: none.")] = 1,
    frames_per_second: Annotated[float, typer.Option(help="Of a video.")] = 1.0,
    max_frames: Annotated[int, typer.Option(help="Of a video.")] = 48,
    num_beams: Annotated[int, typer.Option(help="1: the likeliest token each time.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Of the answer.")] = 128,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
) -> None:
    """Ask a saved model about sounds, pictures, videos and texts, read in the order in which they are given."""
    from lab.data.sample import Audio, Image, Sample, Text, Video
    from lab.data.video import Sight
    from lab.evaluation.answering import ask as ask_model
    from lab.evaluation.benchmarks.samples import open_saved
    from lab.study.store import open_model
    from lab.training.samples import Tiling

    given: dict[str, Any] = {
        "audio": map(Audio, audio or []),
        "image": map(Image, image or []),
        "video": map(Video, video or []),
        "text": map(Text, text or []),
    }
    content = tuple(next(given[name]) for name in context.obj if name in given)
    if not content:
        raise LabError("nothing is asked; give --audio, --image, --video or --text")
    sample = Sample(id="asked", content=content)
    sight, tiling = Sight(frames_per_second=frames_per_second, max_frames=max_frames), Tiling(max_tiles=max_tiles)
    opened = open_saved(open_model(model).folder, device=device)
    told = {"num_beams": num_beams, "max_new_tokens": max_new_tokens}
    typer.echo(ask_model(opened, sample, sight=sight, tiling=tiling, **told))


@models_app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="smollm2_135m, whisper_tiny_en, whisper_base, a folder, OWNER/NAME on the hub, an endpoint's model; "
            "or a run that kept a model: its id, or the beginning."
        ),
    ] = "",
    tasks: Annotated[
        str,
        typer.Argument(
            help="Benchmarks separated by commas, --list shows them; of a run's model, corpora and sources of samples."
        ),
    ] = "",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Items at most, always the same (lm-eval and lmms-eval: of each task)."),
    ] = None,
    as_row: Annotated[
        str, typer.Option("--as", metavar="ROW", help="The model of the paper's tables that this is: fills its cells.")
    ] = "",
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the benchmarks that have it; repeatable.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor (default: all).")] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="Show the benchmarks, the cells they fill, their data and options.")
    ] = False,
) -> None:
    """Evaluate a checkpoint on public benchmarks, or a trained cell on any corpus; nothing is trained.

    Every result is an MLflow run and a line of evaluations.csv.

    What was evaluated before is shown from there; a run that was stopped goes on where it was.
    """
    from lab.paper import evaluating
    from lab.paper.ledger.ours import check_row

    if show_list:
        evaluating.print_benchmarks()
        return
    if not model or not tasks:
        raise LabError("name a model and benchmarks, as in `lab evaluate smollm2_135m mmlu`; `lab evaluate --list`")
    named, benchmarks = evaluating.model_and_benchmarks(model, tasks)
    options = evaluating.options_of(benchmarks, option or ())
    check_row(benchmarks, as_row, limit)
    os.environ.setdefault("TQDM_DISABLE", "1")  # one bar is enough
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    for benchmark in benchmarks:  # all are refused before the first of them is asked
        benchmark.identify(named, options[benchmark.name])
    from lab.study.evaluations import evaluate as run

    for benchmark in benchmarks:
        with evaluating.progress_bar(benchmark.name) as progress:
            done = run(benchmark, named, options=options[benchmark.name], limit=limit, as_row=as_row, progress=progress)
        evaluating.print_recorded(done)
