"""The facts of figure 4 of the report: the stages of training, from `lab.training.stages` alone.

Section 3 of the paper.
"""

from typing import Any

from lab.training.stages import PAPER_STAGES, PARTS

NOT_FOUND = "not found"


def pipeline() -> dict[str, Any]:
    """The parts, and by stage: what trains how fast, what is frozen, data, schedule, and the stages before it."""
    return {
        "parts": dict(PARTS),
        "stages": {
            name: {
                "trained": {part: shown_rate(stage.learning_rates[part]) for part in stage.trained},
                "frozen": list(stage.frozen),
                "data": list(stage.data),
                "weights": NOT_FOUND
                if len(stage.data) > 1 and None in stage.data.values()
                else ", ".join(f"{share:.0%}" for share in stage.mixing_shares.values()),
                "schedule": stage.schedule or NOT_FOUND,
                "length": next((f"{n:,}" for n in (stage.steps, stage.tokens) if n is not None), NOT_FOUND),
                "starts_from": NOT_FOUND if stage.starts_from is None else list(stage.starts_from),
            }
            for name, stage in PAPER_STAGES.items()
        },
    }


def shown_rate(rate: float | None) -> str:
    """As the paper writes it: 1e-3."""
    if rate is None:
        return NOT_FOUND
    digits, _, exponent = f"{rate:.0e}".partition("e")
    return f"{digits}e{int(exponent)}"
