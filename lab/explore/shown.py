"""How objects of `lab` show themselves as the last line of a notebook's cell.

It stands here and not in the classes (`_repr_html_`), because what a run is, and so whether it has to be made again, is
decided by the modules that those stand in, and must not be by how they look. Classes are named, not imported: a
notebook that never shows a corpus never imports one. `lab` registers all this by itself where IPython runs.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lab.explore.html import curve, facts, media, pictures, table, text

_Show = Callable[[Any], str]


def _ablation(shown: Any) -> str:
    rows = [
        {
            "row": row.key,
            "label": row.label,
            "changes": _settings(row.changes) or "nothing: the base",
            "": "" if row.main else "with --rows all",
        }
        for row in shown.rows
    ]
    rungs = ", ".join(rung.name for rung in shown.rungs)
    told = facts(
        shown.name, {"paper": shown.paper, "claim": shown.claim, "rungs": rungs, "seeds": _listed(shown.seeds)}
    )
    return told + table(rows)


def _cell(shown: Any) -> str:
    return facts(f"{shown.ablation}, {shown.title}, rung {shown.rung}", shown.parameters)


def _stage(shown: Any) -> str:
    rates = {part: "not found" if rate is None else f"{rate:g}" for part, rate in shown.learning_rates.items()}
    length = f"{shown.steps:,} steps" if shown.steps else f"{shown.tokens:,} tokens" if shown.tokens else "not found"
    start = "not found" if shown.starts_from is None else _listed(shown.starts_from) or "the parts as pretrained"
    return facts(
        f"stage {shown.name}",
        {
            "paper": shown.paper,
            "trained (peak learning rate)": ", ".join(f"{part} ({rate})" for part, rate in rates.items()),
            "frozen": _listed(shown.frozen) or "nothing",
            "data (weight)": ", ".join(f"{kind} ({weight or 'not found'})" for kind, weight in shown.data.items()),
            "length": length,
            "schedule": shown.schedule or "not found",
            "starts from": start,
        },
    )


def certificate(shown: Any) -> str:
    """The verdict, and every check with its difference and what it may be."""
    verdict = "passed" if shown.passed else f"FAILED: {len(shown.failed)} of {len(shown.checks)} checks"
    return (
        f"<p><b>packing certificate {text(verdict)}</b>, {text(shown.attention)}, {text(shown.precision)}</p>"
        + table(
            {
                "changed: compared": check.name,
                "greatest difference": f"{check.difference:.3g}",
                "tolerance": f"{check.tolerance:g}",
                "": "" if check.passed else "leaks",
            }
            for check in shown.checks
        )
    )


def _said(shown: Any) -> str:
    """An object whose `str` is its account."""
    return f"<p>{text(shown)}</p>"


def _filtered(shown: Any) -> str:
    counts = {"kept": shown.num_kept, **shown.dropped}
    lines = [
        {
            "": reason,
            "samples": f"{count:,}",
            "share": f"{count / max(1, shown.num_samples):.1%}",
            "such as": _listed(shown.examples.get(reason, ())),
        }
        for reason, count in counts.items()
    ]
    settings = _settings(shown.parameters)
    return f"<p><b>{text(shown.name)}</b>{text(f' ({settings})' if settings else '')}</p>" + table(lines)


def _interval(shown: Any) -> str:
    over = f"{shown.num_seeds} seeds and " if shown.over_seeds else "one seed alone: "
    return (
        f"<p><b>{shown.estimate:.2%}</b> ({shown.low:.2%} to {shown.high:.2%}; {shown.confidence:.4g} of all, over "
        f"{over}{shown.num_utterances:,} items in {shown.num_sentences:,} groups)</p>"
    )


def _verdict(shown: Any) -> str:
    return f"<p><b>{text(str(shown.outcome).capitalize())}.</b> {text(shown.sentence)}</p>"


def _corpus(shown: Any) -> str:
    counts = [
        {"split": name, "utterances": f"{part['utterances']:,}", "hours": f"{part['seconds'] / 3600:.2f}"}
        for name, part in shown.manifest()["splits"].items()
        if part["utterances"]
    ]
    return facts(f"corpus {shown.name}", {"language": shown.language, "licence": shown.licence}) + table(counts)


def _record(shown: Any) -> str:
    told = f"{shown.seconds:.1f} s, {shown.peak_memory_bytes / 1e9:.2f} GB at most"
    return f"<p>{curve(shown.losses, 'loss (nats a token)')}; {text(told)}</p>"


def _sample(shown: Any) -> str:
    from lab.data.video.moments import PAPER_SIGHT

    choices = "".join(
        f"<li>{'<b>' if choice == shown.answer else ''}{text(choice)}{'</b>' if choice == shown.answer else ''}</li>"
        for choice in shown.choices or (shown.answer,)
    )
    said = " ".join(part.text for part in shown.content if part.type == "text")
    return f"{media(shown, PAPER_SIGHT)}<p><i>{text(shown.task)}</i>: {text(said)}</p><ul>{choices}</ul>"


def _video(shown: Any) -> str:
    told = f"{len(shown.frames)} frames of {shown.duration_seconds:.2f} s"
    return f"<p>{text(told)}</p>{pictures(shown.frames, shown.seconds.tolist())}"


def _memory(shown: Any) -> str:
    lines = [
        {
            "part": part.name,
            "parameters (M)": f"{part.parameters / 1e6:,.1f}",
            "trained (M)": f"{part.trained_parameters / 1e6:,.1f}",
            "weights, gradients, optimiser (GB)": f"{(part.weights + part.gradients + part.optimizer) / 1e9:,.2f}",
            "activations (GB)": f"{part.activations / 1e9:,.2f}",
        }
        for part in shown.parts
    ]
    told = f"{shown.total / 1e9:,.2f} GB, {shown.flops / 1e12:,.1f} TFLOPs"
    return f"<p><b>{text(told)}</b>, {shown.batch_size} samples of {shown.tokens:,} tokens</p>{table(lines)}"


def _scale(shown: Any) -> str:
    from lab.study.scale import table as written

    return f"<pre>{text(written(shown))}</pre>"


def _page(shown: Any) -> str:
    head, *lines = shown.grid
    told = "".join(f"<p>{text(note)}</p>" for note in (shown.summary, *shown.notes))
    return f"<p><b>{text(shown.title)}</b></p>{table(dict(zip(head, line, strict=True)) for line in lines)}{told}"


def _settings(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))


SHOWN: dict[str, _Show] = {
    "lab.study.ablation.Ablation": _ablation,
    "lab.study.cells.Cell": _cell,
    "lab.study.scale.Scale": _scale,
    "lab.training.stages.Stage": _stage,
    "lab.training.loop.TrainingRecord": _record,
    "lab.training.memory.Memory": _memory,
    "lab.training.packing_certificate.PackingCertificate": certificate,
    "lab.data.sample.Sample": _sample,
    "lab.data.video.reading.VideoFrames": _video,
    "lab.data.speech.corpora.Corpus": _corpus,
    "lab.data.packing.Packs": lambda shown: _said(shown.statistics()),
    "lab.data.packing.PackingStatistics": _said,
    "lab.data.filters.filtering.Filtered": _filtered,
    "lab.data.filters.loss_filters.Normality": _said,
    "lab.evaluation.statistics.Interval": _interval,
    "lab.evaluation.verdict.Verdict": _verdict,
    "lab.paper.ledger.pages.Page": _page,
}
"""What is shown of an object, by its class; subclasses are shown alike."""


def register(shell: Any) -> None:
    """Teach an IPython shell to show them."""
    formatter = shell.display_formatter.formatters["text/html"]
    for name, show in SHOWN.items():
        module, _, kind = name.rpartition(".")
        formatter.for_type_by_name(module, kind, show)
