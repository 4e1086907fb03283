"""Real media files for the tests of the data steps, made by ffmpeg itself and not by the code under test."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CLOCK = "color=black:s={size}:r={rate}:d={seconds},geq=lum='16+2*mod(N,100)':cb=128:cr=128"  # grey level = frame number
TONE = "sine=440:d={seconds}:r=16000"
Film = Callable[..., Path]


@pytest.fixture(scope="session")
def ffmpeg_run() -> Callable[..., None]:
    """Run ffmpeg with the words given, overwriting its output."""
    import imageio_ffmpeg

    program = imageio_ffmpeg.get_ffmpeg_exe()

    def run(*words: object) -> None:
        quiet = [program, "-hide_banner", "-nostdin", "-loglevel", "error", "-y"]
        subprocess.run([*quiet, *map(str, words)], check=True, timeout=60)

    return run


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory, ffmpeg_run: Callable[..., None]) -> Film:
    """Make a video whose grey level is the number of its frame, 16 + 2 * (N mod 100), lossless, with a 440 Hz tone."""
    folder = tmp_path_factory.mktemp("films")

    def make(
        name: str = "film.mp4",
        *,
        rate: str = "15",
        seconds: float = 3,
        size: str = "32x32",
        picture: str = CLOCK,
        sound: str = TONE,
        video: tuple[str, ...] = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0"),
        audio: tuple[str, ...] = ("-c:a", "aac"),
        more: tuple[str, ...] = (),
        before_sound: tuple[str, ...] = (),
        before_picture: tuple[str, ...] = (),
    ) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"rate": rate, "seconds": seconds, "size": size}
        words: list[str] = []
        if picture:
            words += [*before_picture, "-f", "lavfi", "-i", picture.format(**facts)]
        if sound:
            words += [*before_sound, "-f", "lavfi", "-i", sound.format(**facts)]
        ffmpeg_run(*words, *(video if picture else ()), *(audio if sound else ()), *more, path)
        return path

    return make


@pytest.fixture(scope="session")
def odd_files(film: Film, ffmpeg_run: Callable[..., None]) -> dict[str, Path]:
    """The files that a folder of real videos holds sooner or later; the first eleven cannot be used."""
    good = film("good.mp4")
    folder = good.parent
    whole = film(
        "whole.mp4", size="128x96", picture="testsrc2=s={size}:r={rate}:d={seconds}", video=("-c:v", "libx264")
    )
    fast = folder / "fast.mp4"
    ffmpeg_run("-i", whole, "-c", "copy", "-movflags", "+faststart", fast)
    data, faststart = whole.read_bytes(), fast.read_bytes()
    damaged = bytearray(data)
    generator, start = random.Random(0), data.index(b"mdat") + len(data) // 8
    for _ in range(60):
        damaged[start + generator.randrange(len(data) // 2)] ^= 0xFF
    made = {
        "zero-byte.mp4": b"",
        "no-index.mp4": data[: len(data) // 2],
        "cut.mp4": faststart[: len(faststart) // 2],
        "text.mp4": b"this was a text file before somebody renamed it\n" * 20,
        "playlist.mp4": f"ffconcat version 1.0\nfile '{good}'\n".encode(),
        "noise.mp4": generator.randbytes(5000),
        "damaged.mp4": bytes(damaged),
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    ffmpeg_run("-i", good, "-c", "copy", "-t", "0", "-map", "0:v", folder / "empty.mp4")
    late = ("-itsoffset", "2")
    bad = {
        **{name: folder / name for name in made},
        "empty.mp4": folder / "empty.mp4",
        "audio-less.mp4": film("audio-less.mp4", sound=""),
        "video-less.mp4": film("video-less.mp4", picture=""),
        "late-sound.mp4": film("late-sound.mp4", seconds=4, before_sound=late, more=("-t", "4")),
    }
    ffmpeg_run("-display_rotation", "90", "-i", whole, "-c", "copy", folder / "rotated.mp4")
    uneven = CLOCK.replace("r={rate}", "r=20") + ",settb=1/1000,setpts='N*50+trunc(20*sin(N*1.7))'"
    steady = ("-fps_mode", "passthrough", "-enc_time_base", "1/1000", "-video_track_timescale", "1000")
    minute = film("minute.mp4", rate="1", seconds=60, size="64x64", audio=("-c:a", "aac", "-ar", "8000"))
    ffmpeg_run("-stream_loop", "59", "-i", minute, "-c", "copy", folder / "hour.mp4")
    usable = {
        "nine.mp4": film("nine.mp4", rate="9"),
        "ntsc.mp4": film("ntsc.mp4", rate="30000/1001"),
        "uneven.mp4": film("uneven.mp4", picture=uneven, more=steady),
        "rotated.mp4": folder / "rotated.mp4",
        "odd.mp4": film("odd.mp4", size="33x31", more=("-pix_fmt", "yuv444p")),
        "mono.mp4": film("mono.mp4", audio=("-c:a", "aac", "-ac", "1")),
        "surround.mp4": film("surround.mp4", audio=("-c:a", "aac", "-ac", "6", "-ar", "48000")),
        "telephone.mp4": film("telephone.mp4", audio=("-c:a", "aac", "-ar", "8000")),
        "three.webm": film("three.webm", video=("-c:v", "libvpx"), audio=("-c:a", "libopus")),
        "ünïcode – 音楽: 1 %d.mkv": film("ünïcode – 音楽: 1 %d.mkv"),
        "hour.mp4": folder / "hour.mp4",
    }
    return bad | usable
