import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from lab.data import video
from lab.data.video import Sight, VideoFrames, read_sound
from lab.errors import LabError
from tests.data.fakes import encoded, tone
from tests.data.films import animation, brightness, film, number_of


def read_video(path, **sight) -> VideoFrames:
    return video.read_video(path, Sight(**sight))


def numbers(read: VideoFrames) -> list[int]:
    return [number_of(frame) for frame in read.frames]


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("a.mp4", "libx264", None),
        ("a.mkv", "libx264", None),
        ("a.ts", "libx264", "mpegts"),
        ("a.webm", "libvpx-vp9", None),
        ("a.webm", "libvpx", None),
        ("a.avi", "mpeg4", None),
        ("a.mov", "mjpeg", None),
        ("a.mpg", "mpeg2video", "mpeg"),
        ("a.h264", "libx264", "h264"),  # neither duration nor time stamps
        ("a.m4v", "mpeg4", "m4v"),
    ],
)
def test_every_container_gives_the_frame_of_each_moment(tmp_path, name, codec, container):
    rate = 25 if codec == "mpeg2video" else 10
    path = film(tmp_path / name, codec=codec, container=container, rate=rate)
    read = read_video(path, frames_per_second=rate / 5)
    assert read.frames.dtype == np.uint8
    assert read.frames.shape == (6, 32, 48, 3)
    assert numbers(read) == [0, 5, 10, 15, 20, 25]
    np.testing.assert_allclose(read.seconds, np.arange(6) * 5 / rate, atol=1e-3)
    assert read.duration_seconds == pytest.approx(30 / rate, abs=0.05)


def test_raw_motion_jpeg_without_a_rate_has_the_rate_that_ffmpeg_takes(tmp_path):
    read = read_video(film(tmp_path / "a.mjpeg", codec="mjpeg", container="mjpeg"), frames_per_second=5.0)
    assert read.duration_seconds == pytest.approx(30 / 25)
    assert numbers(read) == [0, 5, 10, 15, 20, 25]


def test_a_stream_without_duration_or_index_is_counted(tmp_path):
    path = film(tmp_path / "live.mkv", container="matroska", options={})
    live = io.BytesIO()
    with av.open(str(path)) as source, av.open(live, "w", format="matroska", options={"live": "1"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None or packet.size:
                packet.stream = stream
                output.mux(packet)
    path.write_bytes(live.getvalue())
    with av.open(str(path)) as container:
        assert container.duration is None
    read = read_video(path)
    assert numbers(read) == [0, 10, 20]
    assert read.duration_seconds == pytest.approx(3.0, abs=0.01)


def test_of_a_long_video_48_frames_are_taken_evenly(tmp_path):
    path = film(tmp_path / "long.mp4", 120, rate=2, key_distance=9)
    read = read_video(path)
    assert len(read.frames) == 48
    moments = np.linspace(0, 59, 48)
    shown = np.floor(moments * 2 + 1e-9)
    np.testing.assert_allclose(read.seconds, shown / 2)
    assert numbers(read) == (shown.astype(int) % 30).tolist()


@pytest.mark.parametrize("key_distance", [1, 7, 60])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_jumping_gives_the_pixels_of_plain_decoding(tmp_path, monkeypatch, key_distance, b_frames):
    monkeypatch.delattr(video, "_from_the_start")
    options = {"bf": str(b_frames), "x264-params": "b-adapt=0:b-pyramid=normal:open-gop=1:scenecut=0"}
    path = film(tmp_path / "a.mp4", 60, key_distance=key_distance, options=options)
    with av.open(str(path)) as container:
        plain = [frame.reformat(format="rgb24").to_ndarray() for frame in container.decode(video=0)]
    read = read_video(path, frames_per_second=10 / 3)
    expected = np.stack(plain[::3])
    np.testing.assert_array_equal(read.frames, expected)


def test_only_what_is_needed_is_decoded_and_converted(tmp_path, monkeypatch):
    converted, decoded = [], []
    convert, group = video._converted, video._decode_group
    monkeypatch.setattr(video, "_converted", lambda *given: converted.append(1) or convert(*given))

    def count(*arguments):
        for frame in group(*arguments):
            decoded.append(1)
            yield frame

    monkeypatch.setattr(video, "_decode_group", count)
    read_video(film(tmp_path / "a.mp4", 100, rate=10, key_distance=10, options={"bf": "0"}), max_frames=3)
    assert len(converted) == 3
    assert len(decoded) <= 3 * 10


def test_a_seek_that_fails_costs_no_frame(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4")

    def lost(*arguments):
        raise av.error.InvalidDataError(1, "lost")
        yield

    monkeypatch.setattr(video, "_decode_group", lost)
    assert numbers(read_video(path)) == [0, 10, 20]


def test_variable_frame_rates_go_by_the_time_stamps(tmp_path):
    stamps = [0, 100, 200, 900, 1000, 1001, 2600, 2700]
    read = read_video(film(tmp_path / "a.mkv", 8, stamps=stamps))
    assert numbers(read) == [0, 4, 5]
    np.testing.assert_allclose(read.seconds, [0.0, 1.0, 1.001])
    assert 2.7 < read.duration_seconds < 4.4


def test_a_frame_that_stays_is_there_again_with_its_time(tmp_path):
    read = read_video(film(tmp_path / "a.mkv", 3, stamps=[0, 200, 3900]))
    assert numbers(read)[:4] == [0, 1, 1, 1]
    np.testing.assert_allclose(read.seconds[:4], [0.0, 0.2, 0.2, 0.2])


def quarters(height: int = 32, width: int = 48) -> np.ndarray:
    """Four greys: 0, 80, 160, 240, row by row."""
    return np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((height // 2, width // 2), np.uint8))


@pytest.mark.parametrize(("rotation", "mirrored"), [(0, False), (90, False), (180, False), (-90, False), (0, True)])
def test_rotation_flags_are_applied(tmp_path, rotation, mirrored):
    picture = np.repeat(quarters()[..., None], 3, 2)
    path = film(tmp_path / "a.mp4", 3, picture=picture, rotation=rotation, mirrored=mirrored)
    expected = np.rot90(quarters(), rotation // 90)
    expected = expected[:, ::-1] if mirrored else expected
    frame = read_video(path).frames[0]
    assert frame.shape[:2] == expected.shape
    assert np.abs(frame.mean(2) - expected).mean() < 6


@pytest.mark.parametrize(
    ("height", "width", "rotation", "expected"),
    [(1080, 1920, 0, (384, 683)), (64, 1600, 0, (31, 768)), (1080, 1920, 90, (384, 216)), (100, 200, 0, (100, 200))],
)
def test_frames_fit_into_384_by_768_after_turning(tmp_path, height, width, rotation, expected):
    path = film(tmp_path / "a.mp4", 1, height=height, width=width, rotation=rotation)
    assert read_video(path).frames.shape == (1, *expected, 3)


def test_pixels_that_are_not_square_become_square(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", 2, height=48, width=48, pixel_aspect=Fraction(4, 3))
    assert read_video(path).frames.shape[1:3] == (48, 64)
    monkeypatch.setattr(video, "VIDEO_FRAME", (384, 32))
    assert read_video(path).frames.shape[1:3] == (24, 32)


@pytest.mark.parametrize("suffix", ["webp", "gif", "png"])
def test_animated_pictures_go_by_their_durations(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(video, "VIDEO_FRAME", (384, 12))
    path = animation(tmp_path / f"a.{suffix}", [400, 600, 900, 200, 300])
    read = read_video(path)
    assert numbers(read) == [0, 2, 3]
    np.testing.assert_allclose(read.seconds, [0.0, 1.0, 1.9])
    assert read.duration_seconds == pytest.approx(2.4)
    assert read.frames.shape == (3, 8, 12, 3)
    assert read_sound(path) is None


def test_an_animated_pngs_picture_for_other_readers_is_no_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), (brightness(number),) * 3) for number in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=500, default_image=True)
    read = read_video(tmp_path / "a.png", frames_per_second=2.0)
    assert numbers(read) == [1, 2]
    assert read.duration_seconds == pytest.approx(1.0)


def test_a_picture_without_durations_shows_each_frame_for_a_tenth(tmp_path):
    assert read_video(animation(tmp_path / "a.gif", [0] * 5)).duration_seconds == pytest.approx(0.5)
    Image.new("RGB", (8, 8)).save(tmp_path / "still.png")
    assert len(read_video(tmp_path / "still.png").frames) == 1


def test_transparent_animations_lie_on_white(tmp_path):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.save(tmp_path / "a.webp", save_all=True, append_images=[Image.new("RGBA", (4, 4))], lossless=True)
    assert read_video(tmp_path / "a.webp").frames.min() == 255


def frames_folder(folder, count=12, size=(24, 16)):
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", size, (brightness(number),) * 3).save(folder / f"frame_{number}.png")
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def test_a_folder_of_frames_counts_by_number_not_by_letter(tmp_path, monkeypatch):
    folder = frames_folder(tmp_path / "frames")
    assert numbers(read_video(folder)) == list(range(12))
    monkeypatch.setattr(video, "VIDEO_FRAME", (8, 768))
    read = read_video(folder, frames_per_second=4.0, max_frames=4)
    assert numbers(read) == [0, 3, 7, 11]
    assert read.seconds.tolist() == [0.0, 0.75, 1.75, 2.75]
    assert read.duration_seconds == 3.0
    assert read.frames.shape == (4, 8, 12, 3)
    assert read_sound(folder) is None


def test_a_bad_folder_is_refused_by_name(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(LabError, match=r"none holds no video frames; expected files that end in .*\.png"):
        read_video(tmp_path / "none")
    folder = frames_folder(tmp_path / "frames", 3)
    Image.new("RGB", (5, 5)).save(folder / "frame_2.png")
    with pytest.raises(LabError, match=r"frames changes the size of its picture at 2\.00 seconds"):
        read_video(folder)
    (folder / "frame_2.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(LabError, match=r"frame_2\.png is "):
        read_video(folder)


def test_missing_empty_text_and_sound_are_refused_by_name(tmp_path):
    with pytest.raises(LabError, match=r"gone\.mp4 cannot be read: No such file"):
        read_video(tmp_path / "gone.mp4")
    with pytest.raises(LabError, match=r"gone\.mp4 cannot be read: No such file"):
        read_sound(tmp_path / "gone.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(LabError, match=r"empty\.mp4 is empty; expected a video file"):
        read_video(tmp_path / "empty.mp4")
    for name in ("letter.mp4", "letter.txt"):
        (tmp_path / name).write_text("this is a letter, not a film.\n" * 40)
        with pytest.raises(LabError, match=r"letter\.\w+ (is not a video|holds no moving picture)"):
            read_video(tmp_path / name)
    with pytest.raises(LabError, match=r"letter\.mp4 is neither a video nor a sound"):
        read_sound(tmp_path / "letter.mp4")
    (tmp_path / "voice.wav").write_bytes(encoded(tone(), 16000, "", "wav"))
    with pytest.raises(LabError, match=r"voice\.wav holds no moving picture; expected a video file"):
        read_video(tmp_path / "voice.wav")


def test_the_cover_of_a_piece_of_music_is_no_video(tmp_path):
    cover = io.BytesIO()
    Image.new("RGB", (16, 16)).save(cover, "PNG")
    # ID3v2.3: a header, one APIC frame; sizes in the header hold seven bits a byte.
    body = b"\0image/png\0\x03\0" + cover.getvalue()
    frame = b"APIC" + len(body).to_bytes(4, "big") + b"\0\0" + body
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    (tmp_path / "song.mp3").write_bytes(b"ID3\3\0\0" + size + frame + encoded(tone(), 16000, "libmp3lame", "mp3"))
    with av.open(str(tmp_path / "song.mp3")) as container:
        assert container.streams.video
    with pytest.raises(LabError, match=r"song\.mp3 holds no moving picture"):
        read_video(tmp_path / "song.mp3")


def test_a_video_with_no_frames_is_refused(tmp_path):
    path = film(tmp_path / "none.mkv", 0, sound=tone(1.0, 22050))
    with pytest.raises(LabError, match=r"none\.mkv (holds no video frames|holds no moving picture|is not a video)"):
        read_video(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_truncated_video_is_refused(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = film(tmp_path / name, 60, codec="mpeg4", picture=noise, options=options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(LabError, match=r"a\.\w+ (is truncated: \d\.\d\d of 6\.00 seconds are there|is not a video)"):
        read_video(path)


@pytest.mark.parametrize("read", [lambda path: read_video(path, frames_per_second=5.0), read_sound])
@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "webp", "gif"])
def test_broken_bytes_raise_nothing_but_our_error(tmp_path, kind, read):
    path = tmp_path / f"a.{kind}"
    if kind in ("webp", "gif"):
        animation(path, [100] * 4)
    else:
        film(path, 12, sound=tone(0.3))
    rng = np.random.default_rng(0)
    whole = path.read_bytes()
    for _ in range(40):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 12):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            read(path)
        except LabError as error:
            outcome = str(error)
        else:
            outcome = str(path)
        assert str(path) in outcome


def test_codecs_that_ffmpeg_does_not_know_are_refused_by_name(tmp_path):
    path = film(tmp_path / "a.avi", 12, codec="mpeg4", sound=tone(0.3))
    data = path.read_bytes()
    assert b"FMP4" in data
    path.write_bytes(data.replace(b"FMP4", b"QQQQ"))
    with pytest.raises(LabError, match=r"a\.avi is coded in a way that FFmpeg does not know"):
        read_video(path)
    path.write_bytes(
        data.replace(b"\xff\x00\x01\x00\x22\x56", b"\xee\xee\x01\x00\x22\x56")
    )  # the tag of AAC, one channel
    with pytest.raises(LabError, match=r"a\.avi has sound that is coded in a way that FFmpeg does not know"):
        read_sound(path)


def test_a_frame_too_large_is_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 32 * 48 - 1)
    with pytest.raises(LabError, match=r"a\.mp4 is too large .*: 48 x 32 = 1536 pixels a frame, at most 1535"):
        read_video(film(tmp_path / "a.mp4", 1))


def test_the_sound_track_is_resampled_and_its_pitch_stays(tmp_path):
    path = film(tmp_path / "a.mp4", 10, sound=tone(1.0, 22050))
    samples = read_sound(path)
    assert samples.dtype == np.float32
    assert samples.size == pytest.approx(16000, abs=1500)
    assert np.abs(np.fft.rfft(samples)).argmax() * 16000 / samples.size == pytest.approx(440, abs=5)
    assert numbers(read_video(path)) == [0]


def test_a_silent_film_has_no_sound(tmp_path):
    assert read_sound(film(tmp_path / "a.mp4", 2)) is None
