"""The scale of a rung as text for a terminal, in GB of 1e9 bytes, whatever kind of study it is of."""

from collections.abc import Sequence

from lab.study.scale import Scale
from lab.training.memory import Memory


def table(found: Scale) -> str:
    """By row, by part of the dearest row, and by stage of the paper."""
    counted = found.cells
    models, step = counted.heading
    columns = counted.columns
    lines = [
        f"{found.ablation}, rung {found.rung}: {models}, {_WORDS[found.precision]}",
        f"a step: {step}",
        "",
        "By row",
        *_aligned(
            ("row", f"{counted.studied_as} (M)", *columns, "trained (M)", *_SUMS),
            [
                (
                    row,
                    _millions(counted.studied(m).parameters),
                    *(show(m) for show in columns.values()),
                    _millions(_trained(m)),
                    *_sums(m),
                )
                for row, m in found.rows.items()
            ],
        ),
        *(f"{row} does not fit this rung: {reason}" for row, reason in found.refused.items()),
        "",
        f"By part, {found.dearest}, GB",
        *_by_part(found.rows[found.dearest]),
        *_by_stage(found),
        *(f"{stage} cannot be counted with it: {reason}" for stage, reason in found.refused_stages.items()),
        "",
        *found.notes,
        "Not counted: the GPU's own context, fragmentation, workspaces, features as they are read. Checkpointed: what",
        "recomputing every layer of encoder and language model would leave; the training loop does not.",
    ]
    return "\n".join(lines)


def _by_stage(found: Scale) -> list[str]:
    """Nothing of a study whose parts no stage of the paper has."""
    if not found.stages and not found.refused_stages:
        return []
    columns = found.cells.stage_columns
    return [
        "",
        f"By stage of the paper, with {found.dearest}'s projector and this batch; parts of other branches not counted",
        *_aligned(
            ("stage", *columns, *(f"{part} (M)" for part in found.cells.parts), *_SUMS),
            [
                (
                    stage,
                    *(show(m) for show in columns.values()),
                    *(_millions(part.trained_parameters) for part in m.parts),
                    *_sums(m),
                )
                for stage, m in found.stages.items()
            ],
        ),
    ]


_SUMS = ("kept (GB)", "total (GB)", "checkpointed (GB)")
_WORDS = {
    "float32": "float32",
    "bfloat16": "products in bfloat16, weights in float32 (autocast, as the training loop)",
    "bfloat16_weights": "weights in bfloat16, master copies and moments in float32 (not in the training loop)",
}


def _by_part(memory: Memory) -> list[str]:
    rows = [
        (
            part.name,
            _millions(part.parameters),
            _millions(part.trained_parameters),
            *map(_gigabytes, (part.weights, part.gradients, part.optimizer, part.saved.everything)),
            _gigabytes(part.saved.checkpointed),
        )
        for part in memory.parts
    ]
    again = max(part.saved.computed_again for part in memory.parts)
    rows.append(("gradient of the logits", "", "", "", "", "", _gigabytes(memory.logits), ""))
    rows.append(("that, or a layer computed again", "", "", "", "", "", "", _gigabytes(max(memory.logits, again))))
    titles = (
        "part",
        "parameters (M)",
        "trained (M)",
        "weights",
        "gradients",
        "optimiser",
        "activations",
        "checkpointed",
    )
    return _aligned(titles, rows)


def _trained(memory: Memory) -> int:
    return sum(part.trained_parameters for part in memory.parts)


def _sums(memory: Memory) -> tuple[str, ...]:
    return tuple(map(_gigabytes, (memory.kept, memory.total, memory.total_checkpointed)))


def _aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest entry; the first to the left, numbers to the right."""
    widths = [max(len(line[column]) for line in (titles, *rows)) for column in range(len(titles))]
    return [
        "  ".join(text.ljust(width) if not column else text.rjust(width) for column, (text, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in (titles, *rows))
    ]


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f}"
