import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lab.data import features
from lab.data.features import FeatureStore, Rows, store_features
from lab.errors import LabError, TryAgain
from lab.paths import cache_dir

# Of pictures and videos: frames of each, and of sounds: seconds, not in order of length and no multiple of a frame.
FRAMES = {"c": 2, "a": 0, "b": 3, "d": 1}
SECONDS = {"clip0": 0.91, "clip1": 0.33, "clip2": 1.27, "clip3": 0.52, "clip4": 0.71}
IDS, CLIPS = list(FRAMES), list(SECONDS)
SIZE = 6
SAMPLES_A_FRAME = 320


def frames_of(name: str) -> Rows:
    """One view a frame, but of `d` a whole and two tiles."""
    count, views = FRAMES[name], 3 if name == "d" else 1
    rng = np.random.default_rng(list(name.encode()))
    pixels = rng.integers(0, 256, (count * views, SIZE, SIZE, 3), dtype=np.uint8)
    return Rows(pixels, tuple(0.5 * i for i in range(count)), (SIZE, SIZE * 2), (1, 2) if views == 3 else (1, 1))


def see(place: int) -> Rows:
    return frames_of(IDS[place])


def refuse(place: int) -> Rows:
    raise AssertionError("read again")


def grid_of(pixels: np.ndarray) -> np.ndarray:
    """A 2 x 3 grid of four channels, of values that half precision rounds."""
    return (pixels.reshape(len(pixels), 2, 3, 18)[..., :4] / 7).astype(np.float32)


def keep_views(name: str = "s", ids=IDS, read=see, encode=grid_of, *, key: str = "k", **options):
    return store_features(name, ids, read, encode=encode, key=key, **options)


class Listener:
    """Cuts samples into frames of 20 ms; three statistics of each. Remembers how long the sounds were."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        self.calls.append(len(clip))
        return self.frames(clip)

    @staticmethod
    def frames(clip: np.ndarray) -> np.ndarray:
        windows = clip[: len(clip) // SAMPLES_A_FRAME * SAMPLES_A_FRAME].reshape(-1, SAMPLES_A_FRAME)
        return np.stack([windows.mean(1), windows.std(1), windows.max(1)], axis=1).astype(np.float32)


def waveform(name: str) -> np.ndarray:
    return np.random.default_rng(CLIPS.index(name)).normal(0, 0.1, round(SECONDS[name] * 16000)).astype(np.float32)


def keep_sounds(encode: Callable | None = None, clips=CLIPS, *, key: str = "k", **options) -> FeatureStore:
    heard = encode or Listener()
    return store_features("fake:set/x", clips, lambda place: Rows(heard(waveform(clips[place]))), key=key, **options)


def folders() -> list[Path]:
    """Those of stores that hold something whole."""
    return [path.parent.parent for path in (cache_dir() / "features").glob("*/*/manifest.json")]


@pytest.mark.parametrize("together", [1, 3, 256])
@pytest.mark.parametrize(("kept", "dtype"), [(grid_of, np.float16), (None, np.uint8)])
def test_each_picture_gives_back_what_was_seen_of_it(together, kept: Callable | None, dtype, monkeypatch):
    monkeypatch.setattr(features, "_VIEWS_TOGETHER", together)
    store = keep_views(encode=kept)
    assert store.row_shape == ((2, 3, 4) if kept else (SIZE, SIZE, 3))
    for name in reversed(IDS):
        given, found = frames_of(name), store[name]
        expected = grid_of(given.values).astype(np.float16) if kept else given.values
        assert found.values.dtype == dtype
        np.testing.assert_array_equal(found.values, expected)
        assert store.num_rows(name) == len(expected)
        assert (found.seconds, found.size, found.grid) == (given.seconds, given.size, given.grid)
    with pytest.raises(KeyError):
        store["e"]


def test_each_sound_gives_what_the_encoder_gave_in_half_precision():
    store = keep_sounds()
    for name in CLIPS:
        expected = Listener.frames(waveform(name)).astype(np.float16)
        assert store[name].values.dtype == np.float16
        assert store.num_rows(name) == len(expected) == len(waveform(name)) // SAMPLES_A_FRAME
        np.testing.assert_array_equal(store[name].values, expected)
    assert store.row_shape == (3,)


def test_values_are_a_read_only_view_of_the_file():
    values = keep_sounds()["clip0"].values
    assert isinstance(values, np.memmap)
    assert not values.flags.writeable


def test_a_sound_is_encoded_once_whoever_asks_for_it_beside_whatever_else():
    encoder, done = Listener(), []
    few = keep_sounds(encoder, CLIPS[1:3], progress=lambda *counts: done.append(counts))
    every = keep_sounds(encoder, progress=lambda *counts: done.append(counts))
    assert [len(waveform(name)) for name in (*CLIPS[1:3], *CLIPS[:1], *CLIPS[3:])] == encoder.calls
    assert done == [(1, 2), (2, 2), (1, 3), (2, 3), (3, 3)]
    turned = keep_sounds(encoder, CLIPS[::-1])
    assert len(encoder.calls) == 5
    for store in (few, turned):
        for name in store._parts:
            np.testing.assert_array_equal(store[name].values, every[name].values)
    assert few.folder == every.folder == turned.folder
    assert len({few.sha256, every.sha256, turned.sha256}) == 3
    assert every.sha256 == keep_sounds(key="of another").sha256


def test_statistics_of_a_list_do_not_depend_on_what_else_is_kept():
    alone = keep_sounds(clips=CLIPS[2:], key="alone")
    keep_sounds()
    among = keep_sounds(clips=CLIPS[2:])
    np.testing.assert_array_equal(alone.mean_and_std(max_rows=70), among.mean_and_std(max_rows=70))


def test_a_sound_that_cannot_be_read_is_a_problem_of_the_lists_that_have_it():
    def bad(clip: np.ndarray) -> np.ndarray:
        if len(clip) == len(waveform("clip1")):
            raise LabError("clip1 is broken")
        return Listener.frames(clip)

    assert keep_sounds(bad).problems == {"clip1": "clip1 is broken"}
    assert keep_sounds(refuse, CLIPS[2:]).problems == {}
    assert keep_sounds(refuse, CLIPS[:2]).problems == {"clip1": "clip1 is broken"}


def test_what_may_be_read_another_time_is_no_problem_that_is_kept():
    def away(clip: np.ndarray) -> np.ndarray:
        raise TryAgain("the server is busy")

    with pytest.raises(TryAgain, match="busy"):
        keep_sounds(away)
    assert keep_sounds().problems == {}


def test_a_store_is_computed_once_and_opened_by_name_ids_and_key():
    first = keep_views()
    again = keep_views(read=refuse)
    assert again.folder == first.folder
    assert again.sha256 == first.sha256
    np.testing.assert_array_equal(again["b"].values, first["b"].values)
    others = [
        keep_views("t"),
        keep_views(key="l"),
        keep_views(ids=IDS[:3]),
        keep_views(ids=IDS[::-1], read=lambda place: see(3 - place)),
    ]
    assert len({first.folder, *(store.folder for store in others)}) == 5
    assert sorted(folders()) == sorted({first.folder, *(store.folder for store in others)})
    np.testing.assert_array_equal(others[3]["c"].values, first["c"].values)


def test_the_hash_is_of_the_values_and_not_of_the_key():
    one, other = (keep_views(key=key) for key in "kl")
    assert one.sha256 == other.sha256
    assert keep_views(encode=lambda pixels: grid_of(pixels) + 1, key="m").sha256 != one.sha256


@pytest.mark.parametrize("kept", [grid_of, None])
def test_a_store_of_pictures_of_which_nothing_is_seen_knows_what_views_are_like(kept):
    nothing = Rows(np.zeros((0, SIZE, SIZE, 3), dtype=np.uint8), (), (SIZE, SIZE))
    store = keep_views(read=lambda place: nothing, encode=kept)
    assert store.row_shape == ((2, 3, 4) if kept else (SIZE, SIZE, 3))
    assert store["c"].values.shape == (0, *store.row_shape)
    assert store["c"].seconds == ()
    mean, std = store.mean_and_std(max_rows=10, spread=True)
    width = store.row_shape[-1]
    assert (mean.tolist(), std.tolist()) == ([0.0] * width, [1.0] * width)


def test_names_of_sources_with_options_make_one_folder():
    store = keep_views("scenes:8-48/x", encode=None)
    assert store.folder.parent == cache_dir() / "features"
    assert store.folder.name.startswith("scenes_8-48_x-")


def test_views_are_encoded_when_enough_are_together(monkeypatch):
    monkeypatch.setattr(features, "_VIEWS_TOGETHER", 2)
    told: list[tuple[int, int]] = []
    keep_views(progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("part", ["values.bin", "manifest.json"])
def test_full_disk_is_one_sentence_and_leaves_nothing(monkeypatch, part):
    plain_open = Path.open

    def full(self, *arguments, **options):
        if self.name == part:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain_open(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: full(self, "wb").write(data))
    monkeypatch.setattr(Path, "write_text", lambda self, data, encoding: full(self, "w", encoding=encoding).write(data))
    with pytest.raises(LabError, match=r"no space is left for the features of 's' in .*features"):
        keep_views()
    assert folders() == []


def test_other_errors_of_the_disk_keep_their_traceback(monkeypatch):
    def broken(folder, *arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(features, "_write", broken)
    with pytest.raises(OSError, match="Input/output error"):
        keep_sounds()


def test_what_fails_while_reading_is_raised_as_it_is_and_leaves_nothing():
    with pytest.raises(AssertionError, match="read again"):
        keep_views(read=refuse)
    with pytest.raises(PermissionError):
        keep_views(read=lambda place: (_ for _ in ()).throw(PermissionError("no")))
    assert folders() == []


def dies_at_the_third_clip() -> Callable[[np.ndarray], np.ndarray]:
    encoder = Listener()
    return lambda clip: encoder(clip) if len(encoder.calls) < 2 else os._exit(9)


def test_a_store_left_unfinished_is_not_opened():
    def interrupted(clips):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_sounds(interrupted)
    assert folders() == []
    # And one whose process was killed after two clips, so that nobody tidied up after it.
    killed = multiprocessing.get_context("fork").Process(target=keep_sounds, args=(dies_at_the_third_clip(),))
    killed.start()
    killed.join()
    assert killed.exitcode == 9
    assert list((cache_dir() / "features").rglob("values.bin"))
    assert folders() == []
    encoder = Listener()
    assert keep_sounds(encoder)["clip0"].values.any()
    assert len(encoder.calls) == 5
    assert len(list((cache_dir() / "features").rglob("values.bin"))) == 1


def test_no_parts_and_ids_twice_are_refused():
    with pytest.raises(LabError, match="features of 's' are of no part; expected at least one"):
        keep_views(ids=[])
    with pytest.raises(LabError, match=r"'a' is the id of more than one part \(2 different ones of 3\); give every"):
        keep_views(ids=["a", "b", "a"])


def test_statistics_are_of_each_channel_and_never_zero(monkeypatch):
    monkeypatch.setattr(features, "_ROWS_AT_ONCE", 2)
    store = keep_views(encode=lambda pixels: grid_of(pixels) * (1, 0, -2, 1))
    values = np.concatenate([store[name].values.reshape(-1, 4) for name in IDS]).astype(np.float64)
    mean, std = store.mean_and_std(max_rows=100, spread=True)
    assert (mean.dtype, std.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std[[0, 2, 3]], values.std(0)[[0, 2, 3]], rtol=1e-6)
    assert std[1] == pytest.approx(1e-4)


def test_spread_statistics_of_few_rows_are_of_rows_from_end_to_end():
    store = keep_views()
    views = np.concatenate([store[name].values for name in IDS]).astype(np.float64)
    mean, _ = store.mean_and_std(max_rows=2, spread=True)
    np.testing.assert_allclose(mean, views[[0, -1]].mean((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize(("max_rows", "counted"), [(1, 1), (45, 1), (46, 2), (62, 3), (10_000, 5)])
def test_statistics_of_the_first_rows_end_with_the_part_that_fills_them(max_rows, counted):
    store = keep_sounds()
    assert [store.num_rows(name) for name in CLIPS] == [45, 16, 63, 26, 35]
    frames = np.concatenate([store[name].values for name in CLIPS[:counted]]).astype(np.float64)
    mean, std = store.mean_and_std(max_rows=max_rows)
    np.testing.assert_allclose(mean, frames.mean(0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(std, np.maximum(frames.std(0), 1e-4), rtol=1e-6)
