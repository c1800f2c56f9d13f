import errno
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lab.data import view_features
from lab.data.view_features import SeenFrames, ViewStore, store_views, view_statistics
from lab.errors import LabError
from lab.paths import cache_dir

FRAMES = {"c": 2, "a": 0, "b": 3, "d": 1}
IDS = list(FRAMES)
SIZE = 6


def frames_of(name: str) -> SeenFrames:
    """One view a frame, but of `d` a whole and two tiles."""
    count, views = FRAMES[name], 3 if name == "d" else 1
    rng = np.random.default_rng(list(name.encode()))
    pixels = rng.integers(0, 256, (count * views, SIZE, SIZE, 3), dtype=np.uint8)
    return SeenFrames(pixels, tuple(0.5 * i for i in range(count)), (SIZE, SIZE * 2), (1, 2) if views == 3 else (1, 1))


def see(place: int) -> SeenFrames:
    return frames_of(IDS[place])


def encode(pixels: np.ndarray) -> np.ndarray:
    """A 2 x 3 grid of four channels, of values that half precision rounds."""
    return (pixels.reshape(len(pixels), 2, 3, 18)[..., :4] / 7).astype(np.float32)


def folders() -> list[Path]:
    return [path for path in (cache_dir() / "views").glob("*") if path.suffix != ".lock"]


def refuse(place: int) -> SeenFrames:
    raise AssertionError("seen again")


@pytest.mark.parametrize("at_once", [1, 3, 256])
@pytest.mark.parametrize(("kept", "dtype"), [(encode, np.float16), (None, np.uint8)])
def test_each_sample_gives_back_what_was_seen_of_it(monkeypatch, at_once, kept: Callable | None, dtype):
    monkeypatch.setattr(view_features, "_VIEWS_AT_ONCE", at_once)
    store = store_views("s", IDS, see, kept, key="k")
    assert store.view_shape == ((2, 3, 4) if kept else (SIZE, SIZE, 3))
    for name in reversed(IDS):
        given, found = frames_of(name), store[name]
        expected = encode(given.pixels).astype(np.float16) if kept else given.pixels
        assert found.views.dtype == dtype
        np.testing.assert_array_equal(found.views, expected)
        assert (found.seconds, found.size, found.grid) == (given.seconds, given.size, given.grid)
    with pytest.raises(KeyError):
        store["e"]


def test_a_store_is_computed_once_and_opened_by_name_ids_and_key():
    first = store_views("s", IDS, see, encode, key="k")
    again = store_views("s", IDS, refuse, encode, key="k")
    assert again.folder == first.folder
    assert again.sha256 == first.sha256
    np.testing.assert_array_equal(again["b"].views, first["b"].views)
    others = [
        store_views("t", IDS, see, encode, key="k"),
        store_views("s", IDS, see, encode, key="l"),
        store_views("s", IDS[:3], see, encode, key="k"),
        store_views("s", IDS[::-1], lambda place: see(3 - place), encode, key="k"),
    ]
    assert len({first.folder, *(store.folder for store in others)}) == 5
    assert sorted(folders()) == sorted({first.folder, *(store.folder for store in others)})
    np.testing.assert_array_equal(others[3]["c"].views, first["c"].views)


def test_the_hash_is_of_the_values_and_not_of_the_key():
    one, other = (store_views("s", IDS, see, encode, key=key) for key in "kl")
    assert one.sha256 == other.sha256
    assert store_views("s", IDS, see, lambda p: encode(p) + 1, key="m").sha256 != one.sha256


@pytest.mark.parametrize("kept", [encode, None])
def test_a_store_of_samples_of_which_nothing_is_seen_knows_what_views_are_like(kept):
    nothing = SeenFrames(np.zeros((0, SIZE, SIZE, 3), dtype=np.uint8), (), (SIZE, SIZE))
    store = store_views("s", IDS, lambda place: nothing, kept, key="k")
    assert store.view_shape == ((2, 3, 4) if kept else (SIZE, SIZE, 3))
    assert store["c"].views.shape == (0, *store.view_shape)
    assert store["c"].seconds == ()
    mean, std = view_statistics(store)
    width = store.view_shape[2]
    assert (mean.tolist(), std.tolist()) == ([0.0] * width, [1.0] * width)


def test_names_of_sources_with_options_make_one_folder():
    store = store_views("scenes:8-48/x", IDS, see, None, key="k")
    assert store.folder.parent == cache_dir() / "views"
    assert store.folder.name.startswith("scenes_8-48_x-")


def test_progress_is_told_to_the_end(monkeypatch):
    monkeypatch.setattr(view_features, "_VIEWS_AT_ONCE", 2)
    told: list[tuple[int, int]] = []
    store_views("s", IDS, see, encode, key="k", progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("part", ["views.bin", "offsets.npy", "manifest.json"])
def test_full_disk_is_one_sentence_and_leaves_nothing(monkeypatch, part):
    plain_open = Path.open

    def full(self, *arguments, **options):
        if self.name == part:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain_open(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: full(self, "wb").write(data))
    monkeypatch.setattr(Path, "write_text", lambda self, data, encoding: full(self, "w", encoding=encoding).write(data))
    with pytest.raises(LabError, match=r"no space is left for the views of 's' in .*views"):
        store_views("s", IDS, see, encode, key="k")
    assert folders() == []


def test_what_fails_while_seeing_is_raised_as_it_is_and_leaves_nothing():
    with pytest.raises(AssertionError, match="seen again"):
        store_views("s", IDS, refuse, encode, key="k")
    with pytest.raises(PermissionError):
        store_views("s", IDS, lambda place: (_ for _ in ()).throw(PermissionError("no")), encode, key="k")
    assert folders() == []


@pytest.mark.parametrize(("ids", "counts"), [([], "0, 0"), (["a", "b", "a"], "3, 2")])
def test_no_samples_and_ids_twice_are_refused(ids, counts):
    with pytest.raises(LabError, match=f"views of 's' need samples with ids of their own; got {counts} of them"):
        store_views("s", ids, see, None, key="k")


def test_statistics_are_of_each_channel_and_never_zero():
    store = store_views("s", IDS, see, lambda p: encode(p) * (1, 0, -2, 1), key="k")
    values = np.concatenate([store[name].views.reshape(-1, 4) for name in IDS]).astype(np.float64)
    mean, std = view_statistics(store)
    assert (mean.dtype, std.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std[[0, 2, 3]], values.std(0)[[0, 2, 3]], rtol=1e-6)
    assert std[1] == pytest.approx(1e-4)


def test_statistics_of_few_views_are_of_views_from_end_to_end():
    store = store_views("s", IDS, see, encode, key="k")
    views = np.concatenate([store[name].views for name in IDS]).astype(np.float64)
    mean, _ = view_statistics(store, max_views=2)
    np.testing.assert_allclose(mean, views[[0, -1]].mean((0, 1, 2)), rtol=1e-6)


def test_the_manifest_says_what_is_there():
    store = store_views("s", IDS, see, encode, key="k")
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert manifest["ids"] == IDS
    assert manifest["key"] == "k"
    assert ViewStore(store.folder).sha256 == store.sha256
