from __future__ import annotations

import math
import os
import pickle
import re
import subprocess
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsol_core import clip_windows
from dsol_core.config import ClipsConfig
from dsol_core.types import DataError, ShapeError
from tasks.adapters import media
from tasks.adapters.media import MediaError

SMALL = ClipsConfig(side=16)
RATE = 16000


def frame_number(pixels: np.ndarray) -> int:
    """The number that a frame of the clock film shows."""
    return round((float(pixels.mean()) * 219 / 255) / 2)


def times_of(name: str, count: int = 90) -> np.ndarray:
    """When each frame of a clock film is shown, seconds, by the formula it was made with."""
    n = np.arange(count)
    rates = {"good.mp4": 15, "nine.mp4": 9, "ntsc.mp4": 30000 / 1001, "slow.mp4": 1}
    if name == "uneven.mp4":
        return (n * 50 + np.trunc(20 * np.sin(n * 1.7))) / 1000
    return n / rates[name]


def level(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean((sound / 32768.0) ** 2)))


def test_probe_measures_a_plain_video(film: Callable[..., Path]) -> None:
    info = media.probe(film("plain.mp4", rate="25", seconds=2, size="48x32"), check="decode")
    assert (info.width, info.height, info.rotation, info.frames) == (48, 32, 0, 50)
    assert (info.codec_video, info.codec_audio, info.sample_rate_hz, info.channels) == ("h264", "aac", 16000, 1)
    assert info.frames_per_second == pytest.approx(25) and not info.variable_frame_rate
    assert info.duration == pytest.approx(2, abs=0.07)
    assert info.problems == ()


def test_probe_of_the_header_alone_agrees_and_reads_no_packets(film: Callable[..., Path]) -> None:
    info = media.probe(film("plain.mp4", rate="25", seconds=2, size="48x32"))
    assert (info.width, info.height, info.codec_audio, info.frames) == (48, 32, "aac", 0)
    assert info.frames_per_second == pytest.approx(25) and info.duration == pytest.approx(2, abs=0.07)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("nine.mp4", {"frames_per_second": 9.0, "variable_frame_rate": False}),
        ("ntsc.mp4", {"frames_per_second": 30000 / 1001, "variable_frame_rate": False}),
        ("uneven.mp4", {"frames_per_second": 20.0, "variable_frame_rate": True}),
        ("rotated.mp4", {"width": 96, "height": 128, "rotation": 270}),
        ("odd.mp4", {"width": 33, "height": 31}),
        ("mono.mp4", {"channels": 1}),
        ("surround.mp4", {"channels": 6, "sample_rate_hz": 48000}),
        ("telephone.mp4", {"sample_rate_hz": 8000}),
        ("three.webm", {"codec_video": "vp8", "codec_audio": "opus"}),
        ("ünïcode – 音楽: 1 %d.mkv", {"frames_per_second": 15.0}),
        ("hour.mp4", {"frames": 3600}),
    ],
)
def test_probe_tells_what_is_special_about_a_usable_file(
    odd_files: dict[str, Path], name: str, facts: dict[str, object]
) -> None:
    info = media.probe(odd_files[name], check="decode")
    assert info.problems == ()
    assert info.duration == (pytest.approx(3600, rel=0.005) if name == "hour.mp4" else pytest.approx(3, abs=0.1))
    for field, value in facts.items():
        expected = pytest.approx(value, rel=0.02) if isinstance(value, float) else value
        assert getattr(info, field) == expected, field


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zero-byte.mp4", "empty file"),
        ("empty.mp4", "neither picture nor sound|no sound stream|no picture|not a video"),
        ("no-index.mp4", "moov"),
        ("cut.mp4", "truncated"),
        ("text.mp4", "moov|not a video"),
        ("playlist.mp4", "moov|not a video|does not open"),
        ("noise.mp4", "moov|not a video"),
        ("damaged.mp4", "damaged"),
        ("audio-less.mp4", "no sound stream"),
        ("video-less.mp4", "no picture stream"),
        ("late-sound.mp4", "late stream"),
    ],
)
def test_probe_names_the_reason_why_a_file_cannot_be_used(odd_files: dict[str, Path], name: str, words: str) -> None:
    try:
        problems = media.probe(odd_files[name], check="decode").problems
    except MediaError as error:
        assert name in str(error)
        problems = (error.reason,)
    assert problems, f"{name} was taken for a good file"
    assert any(word in problem for word in words.split("|") for problem in problems), problems


def test_reading_packets_alone_finds_the_cut_but_not_the_damage(odd_files: dict[str, Path]) -> None:
    assert media.probe(odd_files["cut.mp4"], check="packets").problems
    assert not media.probe(odd_files["damaged.mp4"], check="packets").problems


def test_a_cover_picture_is_no_video(film: Callable[..., Path], ffmpeg_run: Callable[..., None]) -> None:
    sound, cover = film("song.m4a", picture=""), film("cover.png", sound="", seconds=0.1, video=("-frames:v", "1"))
    path = sound.with_name("covered.m4a")
    ffmpeg_run("-i", sound, "-i", cover, "-map", 0, "-map", 1, "-c", "copy", "-disposition:v:0", "attached_pic", path)
    assert media.probe(path, check="packets").problems == ("no picture stream",)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", ["good.mp4", "nine.mp4", "ntsc.mp4", "uneven.mp4"])
def test_decoded_frames_lie_within_half_a_source_frame_of_the_asked_time(
    odd_files: dict[str, Path], film: Callable[..., Path], name: str, count: int
) -> None:
    path = odd_files[name] if name in odd_files else film(name)
    clips = list(media.decode(path, replace(SMALL, frames_per_clip=count), duration=3.0))
    assert [clip.index for clip in clips] == [0, 1, 2]
    times = times_of(name)
    for clip in clips:
        assert clip.frames.shape == (count, 16, 16, 3) and clip.frames.dtype == np.uint8
        for number, pixels in enumerate(clip.frames):
            asked = clip.start + (number + 0.5) / count
            distance = np.abs(times[times < 3] - asked)
            assert distance[frame_number(pixels)] <= distance.min() + 0.0011, (asked, frame_number(pixels))


def test_clips_longer_and_shorter_than_a_second_are_cut_by_time_too(film: Callable[..., Path]) -> None:
    config = replace(SMALL, duration=0.5, context=0.5, frames_per_clip=2)
    clips = list(media.decode(film("good.mp4"), config, duration=3.0))
    assert len(clips) == 6
    shown = [frame_number(pixels) / 15 for clip in clips for pixels in clip.frames]
    assert np.allclose(shown, np.arange(0.125, 3, 0.25), atol=0.5 / 15 + 1e-6)


def test_a_picture_of_one_frame_a_second_is_held_to_its_end(film: Callable[..., Path]) -> None:
    path = film("slow.mp4", rate="1")
    clips = list(media.decode(path, replace(SMALL, frames_per_clip=4), duration=3.0))
    numbers = [frame_number(pixels) for clip in clips for pixels in clip.frames]
    assert numbers == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("context", "lengths", "offsets"),
    [
        (1.0, [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]),
        (2.9, [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]),  # no whole clip on both sides
        (3.0, [3, 3, 3, 3, 3], [0, 1, 1, 1, 2]),  # moved inside the video at its ends
        (5.0, [5, 5, 5, 5, 5], [0, 1, 2, 3, 4]),
        (7.0, [5, 5, 5, 5, 5], [0, 1, 2, 3, 4]),
    ],
)
def test_decoded_sound_is_the_clip_with_its_surroundings(
    film: Callable[..., Path], context: float, lengths: list[int], offsets: list[int]
) -> None:
    rising = "aevalsrc='t/10':d=5:s=16000"  # the sample's value tells its time
    path = film("ramp.mkv", seconds=5, sound=rising, audio=("-c:a", "pcm_s16le"))
    clips = list(media.decode(path, replace(SMALL, context=context), duration=5.0))
    assert [len(clip.audio) / RATE for clip in clips] == lengths
    assert [clip.offset / RATE for clip in clips] == offsets
    for clip in clips:
        first = clip.start - clip.offset / RATE
        expected = (first + np.arange(len(clip.audio)) / RATE) / 10
        assert np.allclose(clip.audio / 32768.0, expected, atol=2e-4)


@pytest.mark.parametrize(
    ("duration", "heard", "clips", "windows"),
    [
        (1.0, 5.0, 5, 3),
        (1.0, 3.0, 3, 3),
        (1.0, 2.95, 3, 3),  # the sound ends a little early: silence to the end of the last clip, for its neighbours too
        (1.0, 2.0, 2, 2),
        (1.0, 1.95, 2, 2),
        (1.0, 1.0, 1, 1),
        (2 / 3, 3.4, 5, 3),  # no whole number of samples
        (2 / 3, 2.0, 3, 3),
    ],
)
def test_every_clip_has_as_many_neighbours_as_its_video(
    film: Callable[..., Path], duration: float, heard: float, clips: int, windows: int
) -> None:
    rising = f"aevalsrc='(1+t)/10':d={heard}:s=16000"
    path = film("ramp.mkv", seconds=math.ceil(heard), sound=rising, audio=("-c:a", "pcm_s16le"))
    config = replace(SMALL, duration=duration, context=3 * duration)
    found = list(media.decode(path, config, duration=clips * duration))
    assert len(found) == clips
    size = round(duration * RATE)
    for clip in found:
        starts = clip_windows.starts(len(clip.audio), clip.offset, size)
        assert len(starts) == windows
        times = [clip.start + (start - clip.offset) / RATE for start in starts]
        assert times[0] == clip.start and len({round(time / duration) for time in times}) == windows
        for time, start in zip(times, starts, strict=True):
            assert clip.audio[start] / 32768 == pytest.approx((1 + time) / 10, abs=1e-3)


@pytest.mark.parametrize("name", ["surround.mp4", "telephone.mp4", "three.webm", "ünïcode – 音楽: 1 %d.mkv"])
def test_every_kind_of_sound_becomes_mono_at_the_asked_rate(odd_files: dict[str, Path], name: str) -> None:
    clips = list(media.decode(odd_files[name], replace(SMALL, context=1.0), duration=3.0))
    assert [clip.audio.shape for clip in clips] == [(RATE,)] * 3
    spectrum = np.abs(np.fft.rfft(clips[1].audio.astype(float)))
    assert abs(int(spectrum.argmax()) - 440) <= 2
    assert level(clips[1].audio) > 0.02


@pytest.mark.parametrize(("late", "container"), [("sound", "mp4"), ("picture", "mp4"), ("sound", "mkv")])
def test_streams_that_start_apart_stay_in_step(film: Callable[..., Path], late: str, container: str) -> None:
    shift = ("-itsoffset", "0.4")
    flash, beep = (1.7 - 0.4 * (late == "picture")), (1.7 - 0.4 * (late == "sound"))
    path = film(
        f"shifted-{late}.{container}",
        rate="20",
        picture=f"color=black:s={{size}}:r={{rate}}:d={{seconds}},geq=lum='if(gte(T,{flash}),235,16)':cb=128:cr=128",
        sound=f"aevalsrc='0.5*gte(t,{beep})*sin(2*PI*440*t)':d={{seconds}}:s=16000",
        before_picture=shift if late == "picture" else (),
        before_sound=shift if late == "sound" else (),
    )
    assert media.probe(path, check="decode").problems == ()
    config = replace(SMALL, frames_per_clip=20, context=1.0)
    clip = list(media.decode(path, config, duration=3.0))[1]
    white = [1 + (n + 0.5) / 20 for n, pixels in enumerate(clip.frames) if pixels.mean() > 128]
    assert min(white) == pytest.approx(1.7, abs=0.05)
    loud = np.flatnonzero(np.abs(clip.audio) > 3000)[0] / RATE + 1
    assert loud == pytest.approx(1.7, abs=0.02)


def test_a_gap_in_the_sound_becomes_silence(film: Callable[..., Path]) -> None:
    holed = "sine=440:d={seconds}:r=16000,aselect='not(between(t,1.2,1.7))'"
    path = film("holed.mkv", sound=holed, audio=("-c:a", "pcm_s16le"))
    clips = list(media.decode(path, replace(SMALL, context=1.0), duration=3.0))
    assert level(clips[1].audio[5000:10000]) < 0.001 < 0.05 < level(clips[1].audio[13000:])
    assert level(clips[2].audio) == pytest.approx(level(clips[0].audio), rel=0.01)


def test_rotated_pictures_are_decoded_upright(film: Callable[..., Path], ffmpeg_run: Callable[..., None]) -> None:
    halves = "color=red:s=32x64:r=10:d=1[l];color=blue:s=32x64:r=10:d=1[r];[l][r]hstack"
    path = film("lying.mp4", seconds=1, picture=halves, video=("-c:v", "libx264", "-pix_fmt", "yuv420p"))
    turned = path.with_name("turned.mp4")
    ffmpeg_run("-display_rotation", "90", "-i", path, "-c", "copy", turned)  # shown turned counter-clockwise
    (clip,) = media.decode(turned, SMALL, duration=1.0)
    top, bottom = clip.frames[0][:6].mean((0, 1)), clip.frames[0][-6:].mean((0, 1))
    assert top[2] > 200 > 60 > top[0] and bottom[0] > 200 > 60 > bottom[2]


def test_crop_keeps_the_middle_square_and_resize_the_whole(film: Callable[..., Path]) -> None:
    thirds = (
        "color=red:s=32x32:r=10:d=1[a];color=lime:s=32x32:r=10:d=1[b];color=blue:s=32x32:r=10:d=1[c];[a][b][c]hstack=3"
    )
    path = film("thirds.mp4", seconds=1, picture=thirds, video=("-c:v", "libx264", "-pix_fmt", "yuv420p"))
    (cropped,) = media.decode(path, replace(SMALL, square="crop"), duration=1.0)
    assert cropped.frames[0][:, 1:-1, 1].min() > 200  # green to both sides
    (whole,) = media.decode(path, SMALL, duration=1.0)
    assert whole.frames[0][:, 0, 0].mean() > 180 and whole.frames[0][:, -1, 2].mean() > 180


def test_crop_counts_with_pixels_that_are_not_square(film: Callable[..., Path]) -> None:
    halves = "color=red:s=32x64:r=10:d=1[l];color=blue:s=32x64:r=10:d=1[r];[l][r]hstack,setsar=1/2"
    path = film("narrow.mp4", seconds=1, picture=halves, video=("-c:v", "libx264", "-pix_fmt", "yuv420p"))
    info = media.probe(path)
    assert (info.width, info.height) == (32, 64)
    (clip,) = media.decode(path, replace(SMALL, square="crop"), duration=1.0)
    assert clip.frames[0][:, 0, 0].mean() > 180 and clip.frames[0][:, -1, 2].mean() > 180  # full width kept


def test_an_hour_is_decoded_in_small_memory(odd_files: dict[str, Path]) -> None:
    tracemalloc.start()
    count = sum(1 for _ in media.decode(odd_files["hour.mp4"], SMALL, duration=3600.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 3600
    assert peak < 8e6  # its sound alone is 115 MB


def test_a_picture_is_decoded_no_further_than_its_last_wanted_frame(
    film: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film("plain.mp4", rate="25", seconds=4, size="48x32")
    monkeypatch.setenv("FFREPORT", f"file={tmp_path / 'report'}:level=40")
    assert len(list(media.decode(path, SMALL, duration=2.0))) == 2
    report = ""
    for report in (one.read_text() for one in tmp_path.glob("report*")):
        decoded = re.search(r"\(video\): \d+ packets read .*?(\d+) frames decoded", report)
        if decoded:
            assert 40 <= int(decoded[1]) < 90
    assert report


def test_sound_comes_in_large_pieces(film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = film("plain.mp4", rate="25", seconds=4, size="48x32")
    sizes: list[int] = []
    real = os.read

    def counted(pipe: int, size: int) -> bytes:
        data = real(pipe, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr("tasks.adapters.processes.os.read", counted)
    sound = np.concatenate(list(media.stream_audio(path)))
    assert 2 * len(sound) == sum(sizes)
    assert len(sizes) < 20  # of 32 kB, and the ends of the pipes; not one of each of the 63 packets


def test_a_checked_video_gives_signs_of_life_while_it_is_decoded(
    film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film("plain.mp4", rate="25", seconds=4, size="48x32")
    commands: list[list[str]] = []
    real = media.Child
    monkeypatch.setattr(media, "Child", lambda make, **options: real(lambda ends: heard(make(ends)), **options))

    def heard(command: Sequence[str]) -> Sequence[str]:
        commands.append(list(command))
        return command

    for check in ("packets", "decode"):
        media.probe(path, check=check)
    flushes = [command[command.index("-flush_packets") + 1] for command in commands]
    assert flushes == ["0", "1"]  # a large picture may take a second to decode, a file of packets only does not


def test_decode_stops_at_the_first_damage_and_names_the_file(odd_files: dict[str, Path]) -> None:
    with pytest.raises(MediaError, match=r"damaged\.mp4: damaged"):
        list(media.decode(odd_files["damaged.mp4"], SMALL, duration=3.0))


def test_decode_refuses_a_video_shorter_than_promised(film: Callable[..., Path]) -> None:
    clips = media.decode(film("good.mp4"), SMALL, duration=6.0)
    assert [next(clips).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(MediaError, match=r"truncated: the (sound|picture) ends"):
        next(clips)


def test_decode_of_a_video_without_sound_says_so(odd_files: dict[str, Path]) -> None:
    with pytest.raises(MediaError, match="a stream is missing"):
        list(media.decode(odd_files["audio-less.mp4"], SMALL, duration=3.0))


def test_leaving_a_decoder_early_ends_its_process(odd_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    children = []

    class Watched(media.Child):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            children.append(self)

    monkeypatch.setattr(media, "Child", Watched)
    clips = media.decode(odd_files["hour.mp4"], SMALL, duration=3600.0)
    next(clips)
    (child,) = children
    assert child._process.poll() is None
    clips.close()  # type: ignore[attr-defined]
    assert child._process.poll() is not None


def test_stream_frames_gives_times_at_an_even_rate_and_the_own_size(odd_files: dict[str, Path]) -> None:
    frames = list(media.stream_frames(odd_files["ntsc.mp4"], 10))
    assert [time for time, _ in frames[:30]] == pytest.approx(np.arange(30) / 10)
    assert len(frames) in (30, 31)
    for time, pixels in frames[:30]:
        assert pixels.shape == (32, 32, 3)
        assert abs(frame_number(pixels) / (30000 / 1001) - time) <= 0.5 / 29.9
    turned = next(media.stream_frames(odd_files["rotated.mp4"], 10))[1]
    assert turned.shape == (128, 96, 3)


def test_stream_audio_gives_pieces_that_join_to_the_whole(odd_files: dict[str, Path]) -> None:
    pieces = list(media.stream_audio(odd_files["mono.mp4"]))
    assert [len(piece) for piece in pieces[:2]] == [RATE, RATE]
    whole = np.concatenate(pieces)
    assert len(whole) == pytest.approx(3 * RATE, abs=0.1 * RATE)
    clips = list(media.decode(odd_files["mono.mp4"], replace(SMALL, context=1.0), duration=3.0))
    assert np.array_equal(clips[1].audio, whole[RATE : 2 * RATE])
    with pytest.raises(MediaError, match="a stream is missing"):
        list(media.stream_audio(odd_files["audio-less.mp4"]))


def test_whole_sound_files_of_any_kind_are_read(film: Callable[..., Path], odd_files: dict[str, Path]) -> None:
    rising = "aevalsrc='t/10':d=2:s=8000"
    sound = media.read_audio(film("ramp.flac", picture="", sound=rising, audio=()), 8000)
    assert sound.dtype == np.float32 and len(sound) == 16000
    assert np.allclose(sound, np.arange(16000) / 80000, atol=1e-4)
    assert len(media.read_audio(film("stereo.wav", picture="", audio=("-ac", "2")))) == 3 * RATE
    with pytest.raises(MediaError, match=r"text\.mp4"):
        media.read_audio(odd_files["text.mp4"])


def colours(count: int, height: int, width: int) -> list[np.ndarray]:
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:, : height // 2] = (200, 40, 40)
    frames[:, height // 2 :] = (40, 60, 200)
    return list(frames)


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * math.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (49, 33)])
def test_what_is_encoded_is_decoded_again(tmp_path: Path, height: int, width: int) -> None:
    path = tmp_path / "made.mp4"
    media.encode(path, iter(colours(16, height, width)), tone(2), 8, RATE)
    info = media.probe(path, check="decode")
    assert info.problems == () and info.frames == 16 and (info.codec_video, info.codec_audio) == ("h264", "aac")
    assert (info.height, info.width) == (height + height % 2, width + width % 2)
    assert info.duration == pytest.approx(2, abs=0.07)
    first, second = media.decode(path, replace(SMALL, context=1.0), duration=info.duration)
    assert np.abs(second.frames[0][2:5].astype(int) - (200, 40, 40)).max() < 12
    assert np.abs(second.frames[0][-5:-2].astype(int) - (40, 60, 200)).max() < 12
    assert level(first.audio[2000:]) == pytest.approx(0.5 / math.sqrt(2), rel=0.05)


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        media.encode(tmp_path / name, colours(8, 32, 32), tone(1), 8, RATE)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_encode_refuses_what_is_no_film(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="no frames"):
        media.encode(tmp_path / "none.mp4", [], tone(1), 8, RATE)
    with pytest.raises(ShapeError, match=r"frame 1 is uint8 \[16, 32, 3\]; expected uint8 \[32, 32, 3\]"):
        media.encode(tmp_path / "two.mp4", [*colours(1, 32, 32), *colours(1, 16, 32)], tone(1), 8, RATE)
    with pytest.raises(MediaError, match=r"x\.mp4: cannot be written"):
        media.encode(tmp_path / "nowhere" / "x.mp4", colours(400, 64, 64), tone(1), 8, RATE)


def packets(path: Path) -> list[str]:
    words = [media.binary(), "-v", "error", "-i", path, "-map", "0:a", "-c", "copy", "-f", "framecrc", "-"]
    listing = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True).stdout
    return [line.split(",")[5].strip() for line in listing.splitlines() if line.startswith("0")]


def test_an_annotated_video_keeps_the_sound_untouched(film: Callable[..., Path], tmp_path: Path) -> None:
    source, out = film("good.mp4"), tmp_path / "out.mp4"
    media.annotated_video(out, colours(30, 40, 60), source, 10)
    info = media.probe(out, check="decode")
    assert info.problems == () and info.frames == 30 and (info.width, info.height) == (60, 40)
    assert packets(out) == packets(source)


@pytest.mark.parametrize(("rate", "codec"), [(11025, "aac"), (22050, "mp3")])
def test_an_annotated_video_encodes_mp3_of_rates_that_mp4_does_not_hold(
    film: Callable[..., Path], tmp_path: Path, rate: int, codec: str
) -> None:
    source = film(f"radio-{rate}.avi", audio=("-c:a", "libmp3lame", "-ar", str(rate)))
    media.annotated_video(tmp_path / "out.mp4", colours(30, 40, 60), source, 10)
    assert media.probe(tmp_path / "out.mp4").codec_audio == codec


@pytest.mark.parametrize(
    ("folder", "tag"),
    [
        ("plain", "comment=Full album. Duration: 01:03:45"),
        ("plain", "title=A partial file of my life: corrupt decoded frame, File ended prematurely"),
        ("plain", "comment=displaymatrix: rotation of -90.00 degrees, Video: h264, 7 fps"),
        ("partial file", "title=plain"),
    ],
)
def test_a_files_own_words_are_no_diagnosis(
    film: Callable[..., Path], ffmpeg_run: Callable[..., None], tmp_path: Path, folder: str, tag: str
) -> None:
    said, plain = tmp_path / folder / "said.mp4", tmp_path / "plain.mp4"
    said.parent.mkdir()
    for path, words in ((said, ("-metadata", tag)), (plain, ())):
        ffmpeg_run("-i", film("good.mp4"), "-c", "copy", *words, path)
    for check in ("header", "packets", "decode"):
        found, expected = media.probe(said, check=check), media.probe(plain, check=check)
        assert replace(found, path="") == replace(expected, path=""), check
        assert found.problems == () and found.duration > 2


def test_an_annotated_video_encodes_sound_that_mp4_players_refuse(film: Callable[..., Path], tmp_path: Path) -> None:
    source = film("raw.mkv", audio=("-c:a", "pcm_s16le"))
    media.annotated_video(tmp_path / "out.mp4", colours(30, 40, 60), source, 10)
    assert media.probe(tmp_path / "out.mp4").codec_audio == "aac"
    silent = film("audio-less.mp4", sound="")
    media.annotated_video(tmp_path / "silent.mp4", colours(30, 40, 60), silent, 10)
    assert media.probe(tmp_path / "silent.mp4").codec_audio is None


def test_a_name_that_looks_like_an_option_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("-i http: x.mp4")
    media.encode(path, colours(8, 32, 32), tone(1), 8, RATE)
    assert len(list(media.decode(path, SMALL, duration=1.0))) == 1


def test_the_ffmpeg_that_the_user_names_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own-ffmpeg"
    own.write_text(f'#!/bin/sh\ntouch {tmp_path}/called\nexec {media.binary()} "$@"\n')
    own.chmod(0o755)
    monkeypatch.setenv("DSOL_FFMPEG", str(own))
    assert subprocess.run([media.binary(), "-version"], capture_output=True, text=True).stdout.startswith("ffmpeg")
    assert (tmp_path / "called").exists()
    monkeypatch.setenv("DSOL_FFMPEG", str(tmp_path / "absent"))
    with pytest.raises(DataError, match="DSOL_FFMPEG"):
        media.binary()


def test_an_ffmpeg_that_hangs_is_ended(
    tmp_path: Path, film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(media.Child):
        def __init__(self, command: object, **kwargs: object) -> None:
            super().__init__(lambda _: ["sleep", "60"], stall=0.2, extra=int(kwargs.get("extra", 0)))  # type: ignore[call-overload]

    path = film("good.mp4")
    monkeypatch.setattr(media, "Child", Impatient)
    with pytest.raises(MediaError, match=r"good\.mp4: ffmpeg hangs: wrote nothing for 0\.2 s"):
        list(media.decode(path, SMALL, duration=3.0))


def test_a_media_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(MediaError("films/a.mp4", "truncated: 1 of 2 s")))
    assert error.reason == "truncated: 1 of 2 s" and str(error).startswith("a.mp4: truncated")


def test_real_videos_are_usable(shared_dir: Path) -> None:
    paths = sorted((shared_dir / "data/real-av/videos").glob("*.mp4"))
    assert len(paths) == 18
    infos = [media.probe(path, check="packets") for path in paths]
    assert [info.problems for info in infos] == [()] * 18
    assert sum(info.frames_per_second == pytest.approx(1.0) for info in infos) == 4  # the clips of one frame a second
    config = ClipsConfig(side=32)
    decoded = [
        len(list(media.decode(path, config, duration=i.duration)))
        for path, i in zip(paths[::5], infos[::5], strict=True)
    ]
    assert decoded == [int(info.duration + 0.07) for info in infos[::5]]
