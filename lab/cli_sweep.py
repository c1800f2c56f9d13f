"""The commands that bring studies up to date, now or at set times, and the options that they share.

As in `lab.cli`, every import is inside.
"""

import inspect
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.study.ablation import Ablation
    from lab.study.sweep import Outcome

sweep_app = typer.Typer()
schedule_app = typer.Typer(help="Sweeps at set times, on your crontab.", no_args_is_help=True)
sweep_app.add_typer(schedule_app, name="schedule")


def _ablation(name: str) -> "Ablation":
    from lab.study.ablation import ablation_files, load_ablation

    if not name:
        raise LabError(f"name an ablation; choose one of: {', '.join(ablation_files())}")
    return load_ablation(name)


NAMED = "The ablation: a file of ablations/, without .py."
Name = Annotated[str, typer.Argument(help=NAMED)]
Study = Annotated[
    Any, typer.Argument(parser=_ablation, default_factory=str, show_default=False, metavar="NAME", help=NAMED)
]
"""An ablation, given by its name; without one, the choices are told."""
Rung = Annotated[str, typer.Option(help="How large the study is run: the rungs that the ablation declares.")]
Rows = Annotated[str, typer.Option(help="main, all, or row keys separated by commas.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds separated by commas (default: the ablation's).")]


def rows_of(text: str) -> str | list[str]:
    """`main`, `all`, or the row keys."""
    return text if text in ("main", "all") else [part.strip() for part in text.split(",") if part.strip()]


def seeds_of(text: str | None) -> list[int] | None:
    """The seeds; None for the ablation's own."""
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise LabError(f"seeds are whole numbers separated by commas, such as 0,1,2; got {text!r}") from None


def _asked_sweep(asked: dict[str, Any], ask: bool = False) -> "tuple[Callable[..., Outcome], dict[str, Any]]":
    """What brings a study up to date, `reproduce` or rounds of it with looks at the claim, and its arguments.

    They are read from the options of `reproduce`. `ask`: above a budget, where there is a terminal.
    """
    from functools import partial

    from lab.study.forecast import Budget
    from lab.study.limits import Limits, parse_bytes, parse_seconds
    from lab.study.machines import Machines
    from lab.study.sweep import reproduce

    def read(name: str, parse: "Callable[[str, str], Any]") -> Any:
        return None if asked[name] is None else parse(asked[name], f"--{name.replace('_', '-')}")

    def go_on(above: str) -> bool:
        return typer.confirm(f"{above}. Run all of it nevertheless?")

    budget = None
    if (seconds := read("budget", parse_seconds)) is not None:
        budget = Budget(
            seconds=seconds, fit=asked["fit"], gpus=asked["gpus"], ask=go_on if ask and _is_terminal() else None
        )
    elif asked["fit"]:
        raise LabError("--fit says what to do under a budget; give one, as in --budget 2h --fit")
    memory_bytes = read("memory_limit", parse_bytes)
    arguments = {
        "rung": asked["rung"],
        "rows": rows_of(asked["rows"]),
        "seeds": seeds_of(asked["seeds"]),
        "workers": asked["workers"],
        "machines": Machines(
            ray=asked["ray"],
            slurm=asked["slurm"],
            slurm_options=tuple(asked["slurm_option"] or ()),
            tracking_uri=asked["tracking_uri"],
            gpus=asked["gpus"],
        ),
        "limits": Limits(
            seconds=read("time_limit", parse_seconds), memory_bytes=memory_bytes, retries=asked["retries"]
        ),
        "budget": budget,
    }
    if asked["until_decided"]:
        from lab.paper.claims import question_of
        from lab.study.adaptive import until_decided

        question = question_of(asked["ablation"], asked["rung"])
        return partial(until_decided, question=question, most_seeds=asked["max_seeds"]), arguments
    if asked["max_seeds"] is not None:
        raise LabError("--max-seeds says where adding seeds ends; it needs --until-decided")
    return reproduce, arguments


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _follow_with_report() -> None:
    """The report follows every sweep; one that cannot be written is no failure of the sweep's."""
    from lab.paper.report import write_report

    try:
        typer.echo(f"report: {write_report()}")
    except (LabError, OSError) as error:
        typer.echo(f"no report: {error}", err=True)


@sweep_app.command()
def reproduce(
    ablation: Study,
    rung: Rung = "cpu",
    rows: Rows = "main",
    seeds: Seeds = None,
    workers: Annotated[int | None, typer.Option(help="Cells at once (default: the rung's, else one a core).")] = None,
    gpus: Annotated[float, typer.Option(help="GPUs of each cell's own, as in 2 or 0.5 (else all see all).")] = 0.0,
    time_limit: Annotated[str | None, typer.Option(help="Of a cell, as in 90m or 2h (default: none).")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="Of a cell, as in 8GB (default: none).")] = None,
    retries: Annotated[int, typer.Option(help="Further tries of a cell after what can pass, such as a download.")] = 2,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Of this machine's time, or GPU time with --gpus: 2h; above it a terminal asks, else refused."
        ),
    ] = None,
    fit: Annotated[bool, typer.Option("--fit", help="With --budget: run what fits, whole rows first.")] = False,
    until_decided: Annotated[
        bool,
        typer.Option("--until-decided", help="Then add seeds, doubling them, to the rows that decide the claim."),
    ] = False,
    max_seeds: Annotated[int | None, typer.Option(min=1, help="With --until-decided: of a row (default: 24).")] = None,
    ray: Annotated[str, typer.Option(metavar="HOST:PORT", help="Run the cells on that Ray cluster.")] = "",
    slurm: Annotated[
        str, typer.Option(metavar="slurm|local", help="Run the cells as Slurm jobs; local: a stand-in.")
    ] = "",
    slurm_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="For submitit: slurm_partition=gpu; repeatable."),
    ] = None,
    tracking_uri: Annotated[
        str, typer.Option(metavar="http://HOST:PORT", help="With --ray or --slurm: an MLflow server of mlruns/.")
    ] = "",
) -> None:
    """Train and measure every cell that is missing or changed; a second call does nothing.

    Results go to ablations/results/NAME.csv, every run to MLflow (mlruns/), executed notebooks to mlruns/notebooks/.
    Ctrl-C stops cleanly; the next call goes on from there. Exits with 1 where a cell failed. With --until-decided,
    looks at the claim are kept in ablations/results/NAME.RUNG.looks.json; undecided is a result, and no failure.
    """
    sweep, arguments = _asked_sweep(locals(), ask=True)
    from lab.study.plan import describe

    outcome = sweep(ablation, **arguments)
    typer.echo(describe(outcome.planned) + (f"; results: {outcome.results_file}" if outcome.results_file else ""))
    for title, reason in outcome.failed.items():
        typer.echo(f"failed: {title}: {reason}", err=True)
    if any(entry.to_do for entry in outcome.before):
        _follow_with_report()
    if outcome.interrupted:
        raise typer.Exit(130)
    if outcome.failed:
        raise typer.Exit(1)


def _with_the_options_of_reproduce(command: "Callable[..., None]") -> "Callable[..., None]":
    """Typer reads options from a signature; two commands that take the same should not declare them twice."""
    command.__signature__ = inspect.signature(reproduce)  # type: ignore[attr-defined]
    command.__annotations__ = reproduce.__annotations__
    return command


@sweep_app.command()
@_with_the_options_of_reproduce
def unattended(**asked: Any) -> None:
    """As reproduce, for schedulers: under a lock, logged to a file, with a report in mlruns/unattended/ and in MLflow.

    Does nothing where the last one still runs. Exits with 1 where a cell failed.
    """
    sweep, arguments = _asked_sweep(asked)
    from lab.study.schedule import run_unattended

    report = run_unattended(asked["ablation"], **arguments, sweep=sweep)
    if report is None:
        typer.echo(
            f"{asked['ablation'].name} ({asked['rung']}): left to the last unattended sweep, which is still running"
        )
        return
    typer.echo(report.text)
    _follow_with_report()
    if report.outcome.failed:
        raise typer.Exit(1)


@schedule_app.command("add")
def schedule_add(
    ablation: Study,
    when: Annotated[str, typer.Argument(help="Five fields, as in '0 2 * * *': every night at two.")],
    rung: Rung = "cpu",
    rows: Rows = "main",
    seeds: Seeds = None,
    options: Annotated[
        str, typer.Option(help="Further options of lab unattended, as in '--time-limit 2h --until-decided'.")
    ] = "",
) -> None:
    """Add a line to your crontab that brings the study up to date at set times."""
    from lab.study import schedule

    seeds_of(seeds)
    more = _checked_options(ablation, rung, options)
    typer.echo(schedule.add(ablation, when, rung=rung, rows=rows, seeds=seeds, options=more))


def _checked_options(ablation: "Ablation", rung: str, text: str) -> list[str]:
    """The words of a scheduled sweep's further options, read as its line will be, but now."""
    import shlex

    command: Any = typer.main.get_command(sweep_app)  # a class of click's, or of the copy that newer typers carry
    try:
        words = shlex.split(text)
        asked = command.commands["unattended"].make_context("lab unattended", [ablation.name, *words]).params
    except Exception as error:
        told = error.format_message() if hasattr(error, "format_message") else str(error)
        raise LabError(f"--options are {text!r}: {told}; `lab unattended --help` lists them") from None
    if given := [word for word in ("--rung", "--rows", "--seeds") if any(part.startswith(word) for part in words)]:
        raise LabError(f"{given[0]} is an option of `lab schedule add` itself; give it there")
    _asked_sweep({**asked, "rung": rung})
    return words


@schedule_app.command("list")
def schedule_list() -> None:
    """List the scheduled sweeps of this checkout with their next start."""
    from lab.study import schedule

    for entry in schedule.entries():
        typer.echo(entry)
        typer.echo(f"  {entry.command}")


@schedule_app.command("remove")
def schedule_remove(name: Name, rung: Rung = "cpu") -> None:
    """Take a scheduled sweep off your crontab."""
    from lab.study import schedule

    schedule.remove(name, rung)
    typer.echo(f"{name} ({rung}) is no longer scheduled")
