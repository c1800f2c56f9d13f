"""The options that sweeps share on the command line, and what they come to: read, checked, put together."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.study.ablation import Ablation
    from lab.study.forecast import Budget
    from lab.study.limits import Limits
    from lab.study.sweep import Outcome


def _ablation(name: str) -> "Ablation":
    from lab.study.ablation import load_ablation

    return load_ablation(name)


NAMED = "The ablation: a file of ablations/, without .py."
Name = Annotated[str, typer.Argument(help=NAMED)]
Study = Annotated[Any, typer.Argument(parser=_ablation, metavar="NAME", help=NAMED)]
"""An ablation, given by its name."""
Rung = Annotated[str, typer.Option(help="How large the study is run: the rungs that the ablation declares.")]
Rows = Annotated[str, typer.Option(help="main, all, or row keys separated by commas.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds separated by commas (default: the ablation's).")]


Workers = Annotated[int | None, typer.Option(help="Cells at once (default: the rung's, else one a core).")]
TimeLimit = Annotated[str | None, typer.Option(help="Of a cell, as in 90m or 2h (default: none).")]
MemoryLimit = Annotated[str | None, typer.Option(help="Of a cell, as in 8GB (default: none).")]
Retries = Annotated[int, typer.Option(help="Further tries of a cell after what can pass, such as a download.")]


Gpus = Annotated[
    float, typer.Option(help="GPUs of each cell's own, or a share of one, as in 2 or 0.5 (default: all see all).")
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Of this machine's time, with --gpus of GPU time, as in 2h: where the forecast is above it, a terminal "
        "asks, and all else refuses.",
    ),
]
Fit = Annotated[bool, typer.Option("--fit", help="With --budget: run what fits, whole rows first.")]
UntilDecided = Annotated[
    bool,
    typer.Option(
        "--until-decided",
        help="Then add seeds to the rows that decide the claim, doubling them, until its interval decides or the "
        "budget or --max-seeds ends it; each look has its share of the 5%.",
    ),
]
MaxSeeds = Annotated[
    int | None, typer.Option(min=1, help="With --until-decided: of a row (default: 24, or those looked at already).")
]
RayOption = Annotated[str, typer.Option("--ray", metavar="HOST:PORT", help="Run the cells on that Ray cluster.")]
SlurmOption = Annotated[
    str,
    typer.Option("--slurm", metavar="slurm|local", help="Run the cells as Slurm jobs; local: submitit's stand-in."),
]
SlurmOptions = Annotated[
    list[str] | None,
    typer.Option("--slurm-option", metavar="KEY=VALUE", help="For submitit, as in slurm_partition=gpu; repeatable."),
]
TrackingUri = Annotated[
    str, typer.Option(metavar="http://HOST:PORT", help="With --ray or --slurm: an MLflow server of mlruns/ that runs.")
]


def rows_of(text: str) -> str | list[str]:
    """`main`, `all`, or the row keys."""
    return text if text in ("main", "all") else [part.strip() for part in text.split(",") if part.strip()]


def seeds_of(text: str | None) -> list[int] | None:
    """The seeds; None for the ablation's own.

    Raises:
        LabError: one is no whole number.
    """
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise LabError(f"seeds are whole numbers separated by commas, such as 0,1,2; got {text!r}") from None


def _limits(time_limit: str | None, memory_limit: str | None, retries: int) -> "Limits":
    from lab.study.limits import Limits, parse_bytes, parse_seconds

    return Limits(
        seconds=None if time_limit is None else parse_seconds(time_limit, "--time-limit"),
        memory_bytes=None if memory_limit is None else parse_bytes(memory_limit, "--memory-limit"),
        retries=retries,
    )


def asked_sweep(asked: dict[str, Any], ask: bool = False) -> "tuple[Callable[..., Outcome], dict[str, Any]]":
    """What brings a study up to date, and its arguments, from the options of `reproduce`.

    It is `reproduce`, or rounds of it with looks at the claim. `ask`: above a budget, where there is a terminal.
    """
    from functools import partial

    from lab.study.machines import Machines
    from lab.study.sweep import reproduce

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
        "limits": _limits(asked["time_limit"], asked["memory_limit"], asked["retries"]),
        "budget": _budget(asked["budget"], asked["fit"], asked["gpus"], ask),
    }
    if asked["until_decided"]:
        from lab.paper.claims import question_of
        from lab.study.adaptive import until_decided

        question = question_of(asked["ablation"], asked["rung"])
        return partial(until_decided, question=question, most_seeds=asked["max_seeds"]), arguments
    if asked["max_seeds"] is not None:
        raise LabError("--max-seeds says where adding seeds ends; it needs --until-decided")
    return reproduce, arguments


def _budget(text: str | None, fit: bool, gpus: float = 0.0, ask: bool = False) -> "Budget | None":
    from lab.study.forecast import Budget
    from lab.study.limits import parse_seconds

    if text is None and fit:
        raise LabError("--fit says what to do under a budget; give one, as in --budget 2h --fit")
    if text is None:
        return None
    ask = ask and _is_terminal()
    return Budget(seconds=parse_seconds(text, "--budget"), fit=fit, gpus=gpus, ask=_go_on if ask else None)


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _go_on(above: str) -> bool:
    return typer.confirm(f"{above}. Run all of it nevertheless?")
