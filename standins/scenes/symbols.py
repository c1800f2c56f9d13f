"""Scenes told in symbols: for each frame and cell of a grid, which class covers how much of it, and how it lies.

What a projector would have to say if it saw perfectly. The small language model of the vision studies learns to answer
questions about such scenes before it sees any picture (`standins.models.world_pretraining`). Axes: `frames`, `rows`,
`columns`, `symbols`.
"""

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from standins.scenes.casts import THING_CLASSES
from standins.scenes.scene import THOUSAND, Scene

_CLASSES = tuple(THING_CLASSES)
_LARGEST = 300  # about a thing's longer side, in thousandths of the frame
NUM_SYMBOLS = len(_CLASSES) + 5
"""A share of the cell for each class, then sine and cosine of the angle, the size, and how far off its centre is."""


def scene_symbols(
    scene: Scene, seconds: Float32[ndarray, " frames"], grid: int
) -> Float32[ndarray, "frames rows columns symbols"]:
    """Tell a scene at these moments on a grid of `grid` x `grid` cells; a later thing hides an earlier one.

    A thing is taken for the square of its longer side; what it says of itself counts by the share of the cell that it
    covers.
    """
    edges = np.linspace(0, THOUSAND, grid + 1, dtype=np.float32)
    low, high, middle = edges[:-1], edges[1:], (edges[:-1] + edges[1:]) / 2
    told = np.zeros((len(seconds), grid, grid, NUM_SYMBOLS), dtype=np.float32)
    for actor in scene.actors:
        states = [actor.state(round(float(moment) * THOUSAND)) for moment in seconds]
        x, y, size, angle, visible = (
            np.array([getattr(state, name) for state in states], dtype=np.float32)
            for name in ("x", "y", "size", "angle", "visible")
        )
        across, down = (
            np.clip(np.minimum(high, (at + size / 2)[:, None]) - np.maximum(low, (at - size / 2)[:, None]), 0, None)
            for at in (x, y)
        )
        share = down[:, :, None] * across[:, None, :] * (visible * (grid / THOUSAND) ** 2)[:, None, None]
        told *= 1 - share[..., None]
        turned = np.deg2rad(angle)[:, None, None]
        off_x, off_y = ((at[:, None] - middle) / (THOUSAND / 2) for at in (x, y))
        told[..., _CLASSES.index(actor.word)] += share
        for place, value in enumerate(
            (np.sin(turned), np.cos(turned), (size / _LARGEST)[:, None, None], off_x[:, None, :], off_y[:, :, None])
        ):
            told[..., len(_CLASSES) + place] += share * value
    return told
