"""How much faster a video is read than by a plain loop that decodes every frame with OpenCV and picks from them.

    python benchmarks/video.py [--seconds 300] [--scene-seconds 10] [--repeats 3] [--clip FILE]

The clip is made on the spot: 1280 x 720, 30 frames a second, H.264 as libx264 makes it (preset veryfast), at most 250
frames from one key frame to the next, scenes of about `--scene-seconds` in which ground and things move (with 0, one
scene for the whole clip, so that no cut adds a key frame). Making it takes a minute or two.

Both sides take 1 frame a second, at most 48, shrunk to fit 384 x 768, each in a process of its own, in turn. The loop
reads every frame with `VideoCapture.read` and keeps those that are wanted; it may count on the header's rate and number
of frames, so that it need not keep all frames until the end. It has OpenCV's own threads, we ours (cores + 1, at
most 4). Timed from opening the file to the last frame, without imports. Printed: medians of wall and processor seconds
and their ratios, and peak memory above what the imports take. The frames of both sides have to be the same, but for the
two libraries' ways to shrink.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from lab.data.images import fit_within
from lab.data.video import chosen_seconds, read_video
from lab.errors import LabError

FRAMES_PER_SECOND, MAX_FRAMES, MAX_HEIGHT, MAX_WIDTH = 1.0, 48, 384, 768
# Mean over a frame's values, of 255. The same frame differs by 2.1, half of it OpenCV's darker tones; the next by 11.
LARGEST_DIFFERENCE = 4.0
MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One side's reading of the clip; memory in bytes, above what the process had before."""

    wall_seconds: float
    cpu_seconds: float
    memory: int


def make_clip(path: Path, *, seconds: int, scene_seconds: float, rate: int, size: tuple[int, int]) -> None:
    """Encode the clip; a seed draws its scenes, grounds and things."""
    height, width = size
    rng = np.random.default_rng(0)
    count = seconds * rate
    cuts = {0}
    while scene_seconds and max(cuts) < count:
        cuts.add(max(cuts) + max(1, round(rng.uniform(0.5, 1.5) * scene_seconds * rate)))
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = 250
        stream.codec_context.time_base = Fraction(1, rate)
        for number in range(count):
            if number in cuts:
                ground, things = _scene(rng, height, width)
            picture = _drawn(ground, things, number / rate, height, width)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))


def _scene(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """A ground twice as large as the picture, blotches and grain; eight things: colour, and place and speed."""
    blotches = rng.integers(40, 216, (2 * height // 20, 2 * width // 20, 3), dtype=np.int16)
    ground = np.kron(blotches, np.ones((20, 20, 1), np.int16)) + rng.integers(-6, 7, (2 * height, 2 * width, 1))
    things = [(rng.integers(0, 256, 3, dtype=np.uint8), rng.uniform(0, [2, 2, 0.3, 0.3])) for _ in range(8)]
    return ground.astype(np.uint8), things


def _drawn(
    ground: np.ndarray, things: list[tuple[np.ndarray, np.ndarray]], moment: float, height: int, width: int
) -> np.ndarray:
    top, left = int((np.sin(moment / 3) + 1) / 2 * height), int((np.cos(moment / 5) + 1) / 2 * width)
    picture = ground[top : top + height, left : left + width].copy()
    high, wide = height // 6, width // 8
    for colour, (down, right, speed_down, speed_right) in things:
        y = int(abs((down + speed_down * moment) % 2 - 1) * (height - high))
        x = int(abs((right + speed_right * moment) % 2 - 1) * (width - wide))
        picture[y : y + high, x : x + wide] = colour
    return picture


def read_with_opencv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The plain loop: frames and their seconds."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    moments = chosen_seconds(count / rate, frames_per_second=FRAMES_PER_SECOND, max_frames=MAX_FRAMES)
    wanted = np.floor(moments * rate + 1e-3).astype(int)
    kept, number = {}, 0
    while True:
        there, frame = capture.read()
        if not there:
            break
        if number in wanted:
            high, wide = fit_within(frame.shape[0], frame.shape[1], MAX_HEIGHT, MAX_WIDTH)
            small = cv2.resize(frame, (wide, high), interpolation=cv2.INTER_AREA)
            kept[number] = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
        number += 1
    return np.stack([kept[number] for number in wanted]), wanted / rate


def read_with_ours(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`read_video`: frames and their seconds."""
    video = read_video(path)
    return video.frames, video.seconds


SIDES = {"opencv": read_with_opencv, "ours": read_with_ours}


def _memory(field: str) -> int:
    """Bytes by this process's own account: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def run_side(name: str, clip: Path, folder: Path) -> None:
    """In a process of its own: read, and leave frames and numbers in the folder."""
    if name == "opencv":
        import cv2  # noqa: F401 (before the clock starts)
    before, begun, cpu = _memory("VmRSS"), time.perf_counter(), time.process_time()
    frames, seconds = SIDES[name](clip)
    numbers = {"wall_seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu}
    (folder / f"{name}.json").write_text(json.dumps({**numbers, "memory": _memory("VmHWM") - before}))
    np.savez(folder / f"{name}.npz", frames=frames, seconds=seconds)


def time_side(name: str, clip: Path, folder: Path) -> Reading:
    """Start that process and take its numbers."""
    command = [sys.executable, __file__, "--side", name, "--clip", str(clip), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"the side {name} ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return Reading(**json.loads((folder / f"{name}.json").read_text()))


def compare(folder: Path) -> tuple[np.ndarray, float]:
    """Our frames, and the largest mean difference of a frame from the other side's.

    Raises:
        LabError: the two sides chose other moments, or their frames differ by more than shrinking explains.
    """
    ours, theirs = (np.load(folder / f"{name}.npz") for name in ("ours", "opencv"))
    if not np.allclose(ours["seconds"], theirs["seconds"], atol=1e-3):
        raise LabError(f"the sides chose other moments: {ours['seconds']} and {theirs['seconds']}")
    differences = np.abs(ours["frames"].astype(np.int16) - theirs["frames"]).mean((1, 2, 3))
    if differences.max() > LARGEST_DIFFERENCE:
        raise LabError(f"the sides' frames differ by {differences.max():.1f} of 255 in the mean; they are not the same")
    return ours["frames"], float(differences.max())


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the clip, read it in turn, print the medians."""
    parser = argparse.ArgumentParser(description="Reading a video, ours against a plain loop with OpenCV.")
    parser.add_argument("--seconds", type=int, default=300, help="of the clip [300]")
    parser.add_argument("--scene-seconds", type=float, default=10.0, help="about as long is a scene; 0: one scene [10]")
    parser.add_argument("--rate", type=int, default=30, help="frames a second [30]")
    parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), help="height and width [720 1280]")
    parser.add_argument("--repeats", type=int, default=3, help="of each side [3]")
    parser.add_argument("--clip", type=Path, help="another video, or where to keep the clip that is made")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        run_side(options.side, options.clip, options.folder)
        return
    if importlib.util.find_spec("cv2") is None:
        raise LabError(
            "the other side of this benchmark is OpenCV, which is not installed: pip install -e '.[bench]', or, beside "
            "the environment, pip install --target FOLDER opencv-python-headless and put FOLDER on PYTHONPATH"
        )
    if options.seconds < 1 or options.repeats < 1 or options.rate < 1 or options.scene_seconds < 0:
        raise LabError("the benchmark needs at least 1 second, 1 frame a second and 1 repeat, and no negative scenes")
    with tempfile.TemporaryDirectory(prefix="omni-lab-video-") as scratch:
        folder = Path(scratch)
        clip = options.clip or folder / "clip.mp4"
        if not clip.exists():
            scenes = {"seconds": options.seconds, "scene_seconds": options.scene_seconds}
            make_clip(clip, **scenes, rate=options.rate, size=tuple(options.size))
        readings: dict[str, list[Reading]] = {name: [] for name in SIDES}
        for _ in range(options.repeats):
            for name in SIDES:
                readings[name].append(time_side(name, clip, folder))
        frames, difference = compare(folder)
        size = clip.stat().st_size
    report(readings, frames, difference, size)


def report(readings: dict[str, list[Reading]], frames: np.ndarray, difference: float, size: int) -> None:
    """Print what was measured."""
    walls, cpus = (
        {name: statistics.median(getattr(reading, field) for reading in side) for name, side in readings.items()}
        for field in ("wall_seconds", "cpu_seconds")
    )
    load = f"{os.getloadavg()[0]:.1f} processes want to run on {os.cpu_count()} cores"
    print(f"a clip of {size / MEGABYTE:.0f} MB, {len(frames)} frames chosen; {load}")
    for name, side in readings.items():
        memory = max(reading.memory for reading in side) / MEGABYTE
        print(
            f"{name}: {walls[name]:.2f} s, {cpus[name]:.2f} s of processor time (medians of {len(side)}), "
            f"{memory:.0f} MB at most beyond the imports"
        )
    print(f"the chosen frames alone: {frames.nbytes / MEGABYTE:.0f} MB")
    print(f"largest mean difference between the sides' frames: {difference:.2f} of 255")
    print(f"ratio of wall times, opencv / ours: {walls['opencv'] / walls['ours']:.2f}")
    print(f"ratio of processor times, opencv / ours: {cpus['opencv'] / cpus['ours']:.2f}")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"error: {error}")
