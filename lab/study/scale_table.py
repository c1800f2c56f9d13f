"""The scale of a rung as text for a terminal, in GB of 1e9 bytes, whatever kind of study it is of."""

from collections.abc import Mapping, Sequence

from lab.study.scale import Need, Scale
from lab.training.memory import Memory, PartMemory

_SUMS = ("kept (GB)", "total (GB)", "checkpointed (GB)", "TFLOPs a step")
_WORDS = {
    "float32": "float32",
    "bfloat16": "products in bfloat16, weights in float32 (autocast, as the training loop)",
    "bfloat16_weights": "weights in bfloat16, master copies and moments in float32 (not in the training loop)",
}


def table(found: Scale) -> str:
    """By row, by part of the dearest row, and by stage of the paper."""
    models, step = found.heading
    dearest = found.rows[found.dearest]
    lines = [
        f"{found.ablation}, rung {found.rung}: {models}, {_WORDS[found.precision]}",
        f"a step: {step}",
        "",
        "By row",
        *_aligned([_row(row, need) for row, need in found.rows.items()]),
        *(f"{row} does not fit this rung: {reason}" for row, reason in found.refused.items()),
        "",
        f"By part, {found.dearest}, GB",
        *_aligned(_by_part(dearest.memory, dearest.dearest.checkpointed)),
        *_by_stage(found),
        *(f"{stage} cannot be counted with it: {reason}" for stage, reason in found.refused_stages.items()),
        "",
        *found.notes,
        "Not counted: the GPU's own context, fragmentation, workspaces, features as they are read. Checkpointed: what",
        "recomputing every layer of encoder and language model leaves (`gradient_checkpointing` of the training loop).",
    ]
    return "\n".join(lines)


def _row(name: str, need: Need) -> dict[str, str]:
    parts = {part.name: part for part in need.memory.parts}
    branch = need.dearest.leg.branch
    studied = f"{'projector' if branch else 'language model'} (M)"
    return {
        "row": name,
        studied: _millions(parts[branch or "language_model"].parameters),
        **need.shown,
        "trained (M)": _millions(sum(part.trained_parameters for part in parts.values())),
        **_sums(need),
    }


def _by_stage(found: Scale) -> list[str]:
    """Nothing of a study whose parts no stage of the paper has."""
    if not found.stages and not found.refused_stages:
        return []
    lines = []
    for name, need in found.stages.items():
        shown = {title: text for title, text in need.shown.items() if title in ("tokens a sample", "dearest batch")}
        trained = {f"{part.name} (M)": _millions(part.trained_parameters) for part in need.memory.parts}
        lines.append({"stage": name, **shown, **trained, **_sums(need)})
    title = (
        f"By stage of the paper, with {found.dearest}'s projector and this batch; parts of other branches not counted"
    )
    return ["", title, *_aligned(lines)]


def _by_part(memory: Memory, checkpointed: Memory) -> list[dict[str, str]]:
    def line(part: PartMemory, again: PartMemory) -> dict[str, str]:
        return {
            "part": part.name,
            "parameters (M)": _millions(part.parameters),
            "trained (M)": _millions(part.trained_parameters),
            "weights": _gigabytes(part.weights),
            "gradients": _gigabytes(part.gradients),
            "optimiser": _gigabytes(part.optimizer),
            "activations": _gigabytes(part.activations),
            "checkpointed": _gigabytes(again.activations),
        }

    lines = [line(part, again) for part, again in zip(memory.parts, checkpointed.parts, strict=True)]
    passing = {"activations": _gigabytes(memory.passing), "checkpointed": _gigabytes(checkpointed.passing)}
    empty = dict.fromkeys(lines[0], "")
    return [*lines, {**empty, "part": "more at the worst moment", **passing}]


def _sums(need: Need) -> dict[str, str]:
    memory = need.memory
    sizes = (memory.kept, memory.total, need.dearest.checkpointed.total)
    return dict(zip(_SUMS, (*map(_gigabytes, sizes), f"{memory.flops / 1e12:,.1f}"), strict=True))


def _aligned(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Columns as wide as their widest entry; the first to the left, numbers to the right."""
    if not rows:
        return []
    titles = list(rows[0])
    lines = [titles, *([row[title] for title in titles] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(text.rjust(width) if place else text.ljust(width) for place, (text, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f}"
