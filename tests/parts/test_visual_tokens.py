import math

import numpy as np
import pytest
import torch

from lab.parts.any_resolution import NEWLINE, token_order
from lab.parts.media_tokens import Seen, VisualTokens, token_places
from lab.parts.visual_projectors import VISUAL_PROJECTORS, build_visual_projector
from tests.parts.tiny_vision import HIDDEN_SIZE, IMAGE_SIZE, NUM_CHANNELS, seen, tiny_tokens

WIDE = (IMAGE_SIZE, 2 * IMAGE_SIZE)
TALL = (2 * IMAGE_SIZE, IMAGE_SIZE)


def places_by_hand(grid: tuple[int, int], size: tuple[int, int], newline: bool) -> list[list[float]]:
    """Read a frame's tokens row by row, first of the whole, then of the tiles as one grid."""
    rows, columns = size
    places = [[(r + 0.5) / rows, (c + 0.5) / columns, 0.0] for r in range(rows) for c in range(columns)]
    down, across = grid[0] * rows, grid[1] * columns
    for r in range(down):
        places += [[(r + 0.5) / down, (c + 0.5) / across, 1.0] for c in range(across)]
        if newline:
            places.append([(r + 0.5) / down, 1.0, 1.0])
    return places


@pytest.mark.parametrize("newline", [False, True])
@pytest.mark.parametrize(("image", "grid"), [((8, 16), (1, 2)), ((16, 8), (2, 1)), ((16, 24), (2, 3))])
@pytest.mark.parametrize("size", [(1, 2), (2, 2), (3, 2)])
def test_places_are_those_of_the_frame_read_row_by_row(image, grid, size, newline):
    order = token_order(*image, image_size=8, max_tiles=6, view_grid=size, newline=newline)
    np.testing.assert_allclose(token_places(order, grid, size), places_by_hand(grid, size, newline), rtol=1e-6)


def test_places_of_one_view_and_of_the_worked_example():
    assert token_places(np.arange(2), (1, 1), (2, 1)).tolist() == [[0.25, 0.5, 0.0], [0.75, 0.5, 0.0]]
    found = token_places(np.arange(6), (1, 2), (1, 2))
    assert found[:, 1].tolist() == [0.25, 0.75, 0.125, 0.375, 0.625, 0.875]
    assert found[:, 2].tolist() == [0, 0, 1, 1, 1, 1]


def test_places_of_tokens_left_out_do_not_move_the_others():
    # A frame of 8 x 24 in 1 x 2 tiles is fitted at 5 x 16 and stands from row 1 on: of 8 rows 1 to 5 are kept.
    arguments = {"image_size": 8, "max_tiles": 2, "view_grid": (8, 8), "unpad": True, "newline": True}
    order = token_order(8, 24, **arguments)
    tiles = token_places(order, (1, 2), (8, 8))[64:]
    assert sorted(set(tiles[:, 0].tolist())) == [(row + 0.5) / 8 for row in range(1, 6)]
    assert (order == NEWLINE).sum() == 5
    assert tiles[(order == NEWLINE)[64:]].tolist() == [[(row + 0.5) / 8, 1.0, 1.0] for row in range(1, 6)]


def marks_by_hand(tokens: VisualTokens, place: list[float], second: float) -> torch.Tensor:
    row, column, tiled = place
    angles = [math.pi * 2**k * at for at in (row, column) for k in range(6)]
    turns = [2 * math.pi * second / 64 * 2**k for k in range(8)]
    waves = [math.sin(a) for a in angles] + [math.cos(a) for a in angles] + [tiled]
    waves += [math.sin(t) for t in turns] + [math.cos(t) for t in turns]
    assert tokens.marks is not None
    return tokens.marks.weight @ torch.tensor(waves)


@pytest.mark.parametrize("marks_places", [False, True])
@pytest.mark.parametrize(("size", "grid"), [((8, 8), (1, 1)), (WIDE, (1, 2)), (TALL, (2, 1))])
@pytest.mark.parametrize("frames", [1, 3])
def test_tokens_are_the_projectors_in_the_order_of_the_frame_with_place_and_time_added(
    size, grid, frames, marks_places
):
    part, sample = tiny_tokens(marks_places=marks_places), seen(frames, size)
    (found,) = part([sample])
    # Each view alone, standardised by hand; then the tiles' tokens read row by row across both.
    views = [part.projector(((v - part.feature_mean) / part.feature_std)[None])[0].view(2, 2, -1) for v in sample.views]
    expected = []
    per_frame = 1 if grid == (1, 1) else 3
    for frame in range(frames):
        whole, *tiles = views[frame * per_frame : (frame + 1) * per_frame]
        lines = [[token] for token in whole.flatten(0, 1)]
        places = places_by_hand(grid, (2, 2), True)[:4]
        if tiles:
            merged = torch.cat(tiles, dim=0 if grid == (2, 1) else 1)
            lines += [[*line, part.newline] for line in merged]
            places = places_by_hand(grid, (2, 2), True)
        tokens = [token for line in lines for token in line]
        for token, place in zip(tokens, places, strict=True):
            expected.append(token + marks_by_hand(part, place, sample.seconds[frame]) if marks_places else token)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("projector", VISUAL_PROJECTORS)
def test_a_samples_tokens_do_not_depend_on_the_others_and_nothing_seen_is_no_token(projector):
    part = tiny_tokens(projector)
    unordered = [2, 0, 1, 0]
    samples = [seen(frames, seed=at) for at, frames in enumerate(unordered)]
    together = part(samples)
    cells = math.prod(part.projector.output_grid(4, 4))
    assert [tuple(tokens.shape) for tokens in together] == [(frames * cells, HIDDEN_SIZE) for frames in unordered]
    for sample, tokens in zip(samples, together, strict=True):
        torch.testing.assert_close(part([sample])[0], tokens, rtol=1e-4, atol=1e-5)
    assert [tuple(tokens.shape) for tokens in part([samples[1]])] == [(0, HIDDEN_SIZE)]


def test_half_precision_on_the_disk_and_frames_at_other_times_are_taken():
    part = tiny_tokens()
    sample = seen(2)
    halved = Seen(views=sample.views.half(), seconds=sample.seconds)
    torch.testing.assert_close(part([halved])[0], part([sample])[0], rtol=1e-2, atol=1e-2)
    later = Seen(views=sample.views, seconds=[second + 7 for second in sample.seconds])
    assert not torch.allclose(part([later])[0], part([sample])[0], atol=1e-2)


def test_gradients_reach_projector_marks_and_newline_and_statistics_are_no_parameters():
    part = tiny_tokens()
    part([seen(2, WIDE), seen(1)])[0].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())
    assert {name for name, _ in part.named_buffers()} == {"feature_mean", "feature_std"}


def test_without_statistics_features_are_taken_as_they_are():
    projector = build_visual_projector("mlp", hidden_size=NUM_CHANNELS, output_size=3)
    part, sample = VisualTokens(projector=projector, marks_places=False), seen(1)
    torch.testing.assert_close(part([sample])[0], projector(sample.views)[0])
    assert part.newline is None
    assert part.marks is None


def test_statistics_given_are_copied():
    mean = torch.zeros(NUM_CHANNELS)
    projector = build_visual_projector("mlp", hidden_size=NUM_CHANNELS, output_size=3)
    part = VisualTokens(projector=projector, marks_places=False, feature_mean=mean)
    mean += 1
    assert not part.feature_mean.any()
