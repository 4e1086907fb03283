"""Media files through ffmpeg: probe, decode, encode. Owner of ffmpeg-python and of the ffmpeg binary.

Every call reads local files only (protocol and format whitelists), never asks, keeps bounded memory, gives up on an
ffmpeg that makes no progress, and reports what ffmpeg said in one sentence that names the file. Time 0 of a file is the
start of its earliest stream. Pictures are turned upright.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ffmpeg
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from dsol_core import clip_windows
from dsol_core.config import ClipsConfig
from dsol_core.types import DataError, ShapeError
from tasks.adapters import media_info
from tasks.adapters.media_info import MediaInfo
from tasks.adapters.processes import Child

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
Sound = NDArray[np.int16]

# Containers with picture and sound; no playlists, scripts or image sequences, which name further files.
_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,dv,mxf,nut,rm,wtv,swf"
_SOUND_FORMATS = "flac,wav,mp3,ogg,aiff,aac,mov"  # containers with sound alone
_COPYABLE = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")  # sound that players expect in MP4
_LOWEST_MP3_HZ = 16000  # lower rates are of MPEG-2.5, which MP4 has no name for
_REWRITE = 3600.0  # seconds that ffmpeg may be silent at the end of a file, while it moves the index to its front
_SCALING = "bicubic+accurate_rnd+full_chroma_int"  # widens its kernel when shrinking, so it does not alias
_LEAD = 2.0  # seconds decoded before a wanted frame, so that the one nearest to it is among them
_QUIET = ("-hide_banner", "-nostdin", "-nostats", "-loglevel")


class MediaError(DataError):
    """A media file that cannot be used; `reason` says why without naming it."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{Path(path).name}: {reason}; give a complete video with picture and sound, or leave it out")
        self.path, self.reason = str(path), reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class DecodedClip:
    """One clip of a video.

    Attributes:
        index: it covers [index, index + 1) * duration of a clip.
        start: seconds.
        frames: uint8 [F, side, side, 3].
        audio: int16 [S], mono: the clip's sound with as much of its surroundings as was asked for and exists.
        offset: samples from the start of `audio` to the start of the clip.
    """

    index: int
    start: float
    frames: Pixels
    audio: Sound
    offset: int


def binary() -> str:
    """Return the ffmpeg to run: the one that DSOL_FFMPEG names (a path or a command), else imageio-ffmpeg's.

    Raises:
        DataError: DSOL_FFMPEG names none.
    """
    named = os.environ.get("DSOL_FFMPEG")
    if not named:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    found = shutil.which(named)
    if not found:
        raise DataError(f"DSOL_FFMPEG is {named!r}; expected the path or name of an ffmpeg program; mend or unset it")
    return found


def probe(path: Path, *, check: Literal["header", "packets", "decode"] = "header") -> MediaInfo:
    """Describe a media file.

    Args:
        path: of the file.
        check: "header" reads as little as possible; "packets" reads the whole file without decoding it, which
            measures durations and rates and finds truncation; "decode" also decodes it, which finds damage.

    Raises:
        MediaError: ffmpeg cannot open it. (What it can open but dsol should not use is in `MediaInfo.problems`.)
    """
    if path.stat().st_size == 0:
        raise MediaError(path, "empty file: 0 bytes")
    source = ["-i", f"file:{path.absolute()}", "-map", "0:V:0?", "-map", "0:a:0?"]
    copy = [
        "-c",
        "copy",
        *(["-t", "0"] if check == "header" else []),
        "-flush_packets",
        "1" if check == "decode" else "0",  # 32 kB of lines are 10 s of video, at which a slow decoder would seem hung
        "-f",
        "framecrc",
        "pipe:1",
    ]
    decode = ["-map", "0:V:0?", "-map", "0:a:0?", "-fps_mode", "passthrough", "-f", "null", "-"]
    limits = [word for name, value in _limits().items() for word in (f"-{name}", value)]
    command = [binary(), *_QUIET, "repeat+info", *limits, *source, *copy, *(decode if check == "decode" else [])]
    with Child(lambda _: command) as child, _named(path):
        streams = media_info.read_streams(child.lines())
        failed, report = child.finish(), child.errors()
    if failed and not streams:
        raise MediaError(path, media_info.reason(report))
    return media_info.describe(path, streams, report, measured=check != "header")


def decode(path: Path, config: ClipsConfig, *, duration: float, sample_rate_hz: int = 16000) -> Iterator[DecodedClip]:
    """Decode the whole clips of a video in one pass of ffmpeg, in order.

    Clip k covers [k, k + 1) * config.duration. Its frames are those nearest to the middles of F equal parts of it, by
    their time stamps. A sound that starts after the picture is preceded by silence, a picture that starts after the
    sound by its first frame.

    Args:
        path: of the video.
        config: clip length and context, frames a clip, side and shape of the pictures.
        duration: seconds that picture and sound both last (`MediaInfo.duration`, measured).
        sample_rate_hz: of the sound.

    Raises:
        MediaError: the file is damaged or shorter than `duration`. Clips yielded before are good.
    """
    count = config.frames_per_clip
    size = config.side * config.side * 3
    wanted = media_info.whole_clips(duration, config.duration)
    command = partial(_decode_command, path, config, wanted * count, sample_rate_hz)
    with Child(lambda pipes: command(pipes[0]), extra=1) as child, _named(path):
        sound = _Track(child, sample_rate_hz, config.duration, wanted, clip_windows.stored(config))
        for index in range(wanted):
            start = index * config.duration
            data = child.read(count * size)
            audio, offset, missing = sound.window(start)
            _check_damage(path, child)
            frames = np.frombuffer(data[: len(data) // size * size], np.uint8).reshape(-1, config.side, config.side, 3)
            silent = missing > 2 * media_info.TOLERANCE
            if silent or not len(frames) or (len(frames) < count and index < wanted - 1):
                _check_end(path, child)
                what = "sound" if silent else "picture"
                raise MediaError(path, f"truncated: the {what} ends at {start:.1f} s, {duration:.1f} s were expected")
            held = np.repeat(frames[-1:], count - len(frames), axis=0)  # rounding at the very end of a picture
            yield DecodedClip(index, start, np.concatenate([frames, held]), audio, offset)


def stream_frames(
    path: Path, frames_per_second: float, *, size: tuple[int, int] | None = None
) -> Iterator[tuple[float, Pixels]]:
    """Yield (time, frame) at an even rate, each the frame nearest to its time; constant memory.

    Args:
        path: of the video.
        frames_per_second: of what is yielded; the n-th time is n / frames_per_second.
        size: (height, width) of the frames; by default the upright picture's own.

    Raises:
        MediaError: it cannot be decoded.
    """
    height, width = size or _own_size(path)
    source = _source(path)["V:0"]
    picture = _regular(source, Fraction(frames_per_second).limit_denominator(10000), 0.0)
    picture = picture.filter("scale", width, height, flags=_SCALING).filter("setsar", 1)
    command = _compile(ffmpeg.output(picture, "pipe:1", format="rawvideo", pix_fmt="rgb24"))
    with Child(lambda _: command) as child, _named(path):
        number = 0
        while len(data := child.read(height * width * 3)) == height * width * 3:
            yield number / frames_per_second, np.frombuffer(data, np.uint8).reshape(height, width, 3)
            number += 1
        _check_end(path, child)


def stream_audio(path: Path, sample_rate_hz: int = 16000, *, seconds: float = 1.0) -> Iterator[Sound]:
    """Yield the sound from time 0 on as int16 [S] pieces of `seconds`, the last one shorter; mono, constant memory.

    Raises:
        MediaError: it has no sound or cannot be decoded.
    """
    command = _compile(_sound_output(_source(path), "pipe:1", sample_rate_hz))
    with Child(lambda _: command) as child, _named(path):
        while data := child.read(2 * round(seconds * sample_rate_hz)):
            yield _samples(data)
        _check_end(path, child)


def read_audio(path: Path, sample_rate_hz: int = 16000) -> NDArray[np.float32]:
    """Read a whole sound file (FLAC, WAV, MP3, Ogg, AIFF, AAC) as float32 [S] in [-1, 1], mono.

    Raises:
        MediaError: it has no sound or cannot be decoded.
    """
    source = ffmpeg.input(f"file:{path.absolute()}", **_limits() | {"format_whitelist": _SOUND_FORMATS})
    command = _compile(_sound_output(source, "pipe:1", sample_rate_hz))
    pieces = []
    with Child(lambda _: command) as child, _named(path):
        while data := child.read(1 << 20):
            pieces.append(data)
        _check_end(path, child)
    return _waveform(b"".join(pieces))


def frame_at(path: Path, second: float) -> Pixels | None:
    """Return the frame nearest to a time, uint8 [H, W, 3] at the picture's own size; None where it ends before.

    Raises:
        MediaError: it has no picture or cannot be decoded.
    """
    before = max(0.0, second - _LEAD)
    picture = _regular(_source(path, ss=before)["V:0"], Fraction(1), second - before).filter("setsar", 1)
    command = _compile(ffmpeg.output(picture, "pipe:1", format="image2pipe", vcodec="ppm", pix_fmt="rgb24", vframes=1))
    with Child(lambda _: command) as child, _named(path):
        header = b""
        while header.count(b"\n") < 3 and (more := child.read(1)):
            header += more
        words = header.split()
        width, height = (int(words[1]), int(words[2])) if len(words) == 4 else (0, 0)
        data = child.read(height * width * 3)
        _check_end(path, child)
    return np.frombuffer(data, np.uint8).reshape(height, width, 3) if data else None


def sound_between(path: Path, start: float, seconds: float, sample_rate_hz: int = 16000) -> NDArray[np.float32]:
    """Return the sound of a video or sound file from `start` on, float32 [S] in [-1, 1], mono; shorter at its end.

    Raises:
        MediaError: it has no sound or cannot be decoded.
    """
    source = _source(path, ss=start, t=seconds, format_whitelist=f"{_FORMATS},{_SOUND_FORMATS}")
    command = _compile(_sound_output(source, "pipe:1", sample_rate_hz))
    with Child(lambda _: command) as child, _named(path):
        data = child.read(2 * round(seconds * sample_rate_hz))
        _check_end(path, child)
    return _waveform(data)


def encode(
    path: Path, frames: Iterable[Pixels], waveform: NDArray[np.float32], frames_per_second: float, sample_rate_hz: int
) -> None:
    """Write an MP4 (H.264, yuv420p; AAC). Equal input gives equal bytes.

    Args:
        path: to write, *.mp4; overwritten.
        frames: uint8 [H, W, 3] each, all alike; odd sides are scaled to the next even number.
        waveform: float32 [S], mono in [-1, 1].
        frames_per_second: of the frames.
        sample_rate_hz: of the waveform.

    Raises:
        ShapeError: no frames, or frames of different sizes.
        MediaError: ffmpeg cannot write it.
    """
    with tempfile.NamedTemporaryFile(suffix=".f32") as sound:
        np.ascontiguousarray(waveform, np.float32).tofile(sound)
        sound.flush()
        audio = ffmpeg.input(f"file:{sound.name}", format="f32le", ar=sample_rate_hz, ac=1).audio
        _write(
            path,
            frames,
            frames_per_second,
            audio,
            {"acodec": "aac", "aac_coder": "fast", "audio_bitrate": "96k", "flags:a": "+bitexact"},
        )


def annotated_video(path: Path, frames: Iterable[Pixels], source: Path, frames_per_second: float) -> None:
    """Write frames with the sound of another video to an MP4, in constant memory.

    The sound is copied as it is where MP4 players know its codec, else encoded to AAC; a source without sound gives
    a silent video.

    Args:
        path: to write, *.mp4; overwritten.
        frames: uint8 [H, W, 3] each, all alike, the first at time 0 of the source.
        source: the video whose sound is kept.
        frames_per_second: of the frames.

    Raises:
        ShapeError: no frames, or frames of different sizes.
        MediaError: the source cannot be read or the video not be written.
    """
    info = probe(source)
    kept = info.codec_audio in _COPYABLE and (info.codec_audio != "mp3" or info.sample_rate_hz >= _LOWEST_MP3_HZ)
    audio = _source(source)["a:0"] if info.codec_audio else None
    _write(path, frames, frames_per_second, audio, {"acodec": "copy" if kept else "aac"} if audio else {})


def _write(path: Path, frames: Iterable[Pixels], rate: float, audio: Any, sound_options: dict[str, Any]) -> None:
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None or first.ndim != 3 or first.shape[2] != 3 or first.dtype != np.uint8:
        found = "no frames" if first is None else f"{first.dtype} {list(first.shape)}"
        raise ShapeError(f"{path.name}: {found}; expected uint8 [H, W, 3] frames")
    height, width = first.shape[:2]
    exact = Fraction(rate).limit_denominator(10000)
    picture = ffmpeg.input("pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=str(exact))
    picture = picture.video.filter("scale", width + width % 2, height + height % 2, flags=_SCALING)
    options = {"vcodec": "libx264", "preset": "veryfast", "crf": 18, "pix_fmt": "yuv420p", "threads": 1}
    options |= {"fflags": "+bitexact", "flags:v": "+bitexact", "map_metadata": -1, "movflags": "+faststart"}
    streams = [picture] if audio is None else [picture, audio]
    command = _compile(ffmpeg.output(*streams, f"file:{path.absolute()}", format="mp4", **options, **sound_options))
    with Child(lambda _: [*command, "-y"], writable=True) as child, _named(path):
        try:
            for number, frame in enumerate(_chain(first, iterator)):
                if frame.shape != first.shape or frame.dtype != np.uint8:
                    raise ShapeError(
                        f"{path.name}: frame {number} is {frame.dtype} {list(frame.shape)}; expected uint8 "
                        f"{list(first.shape)} like the first"
                    )
                child.write(np.ascontiguousarray(frame).data)
        except BrokenPipeError:
            logger.debug("ffmpeg ended while %s was being written; its report follows", path.name)
        if child.finish(_REWRITE) or not path.is_file():
            raise MediaError(path, f"cannot be written: {media_info.reason(child.errors())}")


def _chain(first: Pixels, rest: Iterator[Pixels]) -> Iterator[Pixels]:
    yield first
    yield from rest


def _limits() -> dict[str, str]:
    return {"protocol_whitelist": "file,pipe", "format_whitelist": _FORMATS, "threads": "1"}


def _source(path: Path, **options: Any) -> Any:
    return ffmpeg.input(f"file:{path.absolute()}", **_limits() | options)


def _compile(output: Any) -> list[str]:
    quiet = (*_QUIET, "repeat+warning", "-filter_complex_threads", "1")
    return [str(word) for word in output.global_args(*quiet).compile(cmd=binary())]


def _regular(picture: Any, rate: Fraction, first: float) -> Any:
    """Take the frames nearest to first, first + 1 / rate, ... seconds.

    A frame is given the time half-way to its predecessor; then the latest frame that does not lie after an asked time
    is the nearest one, at constant and variable rates alike. One copy of the last frame closes the picture.
    """
    picture = picture.filter("tpad", stop=1, stop_mode="clone").filter("settb", "1/1000000")
    middle = f"if(isnan(PREV_INPTS),PTS,(PTS+PREV_INPTS)/2)-{round(first * 1e6)}"
    return picture.filter("setpts", middle).filter("fps", fps=str(rate), start_time=0, round="up")


def _decode_command(path: Path, config: ClipsConfig, count: int, sample_rate_hz: int, pipe: int) -> list[str]:
    source = _source(path)
    part = config.duration / config.frames_per_clip
    picture = _regular(source["V:0"], 1 / Fraction(part).limit_denominator(10000), part / 2)
    side = config.side
    if config.square == "crop":
        wide = "iw*if(gt(sar,0),sar,1)/ih"
        picture = picture.filter(
            "scale", f"max({side},round({side}*{wide}))", f"max({side},round({side}/({wide})))", flags=_SCALING
        )
        picture = picture.filter("crop", side, side)
    else:
        picture = picture.filter("scale", side, side, flags=_SCALING)
    frames = ffmpeg.output(picture, "pipe:1", format="rawvideo", pix_fmt="rgb24", vframes=count)
    return _compile(ffmpeg.merge_outputs(frames, _sound_output(source, f"pipe:{pipe}", sample_rate_hz)))


def _sound_output(source: Any, target: str, sample_rate_hz: int) -> Any:
    """Resample to mono from time 0 on; a given first time makes ffmpeg follow the time stamps, so gaps are silence.

    A graph of its own lets a picture that has all its frames end before the sound. Without a flush after each of the
    2,600 packets a minute, ffmpeg writes and we read a second at a time.
    """
    resample = f"aresample={sample_rate_hz}:first_pts=0"
    form = {"format": "s16le", "acodec": "pcm_s16le", "ac": 1, "ar": sample_rate_hz, "flush_packets": 0}
    return ffmpeg.output(source["a:0"], target, af=resample, **form)


def _samples(data: bytes) -> Sound:
    """Return the whole samples of what ffmpeg wrote; a sound that it breaks off may end within one."""
    return np.frombuffer(data[: len(data) // 2 * 2], np.int16)


def _waveform(data: bytes) -> NDArray[np.float32]:
    return _samples(data).astype(np.float32) / np.float32(32768)


class _Track:
    """The sound of a video as it streams by: a window around a clip, moved inside the video at its ends."""

    def __init__(self, child: Child, sample_rate_hz: int, duration: float, clips: int, neighbours: int) -> None:
        self._child, self._rate, self._size = child, sample_rate_hz, round(duration * sample_rate_hz)
        self._length = (1 + 2 * neighbours) * self._size
        self._end = round((clips - 1) * duration * sample_rate_hz) + self._size  # of the last clip
        self._kept = np.zeros(0, np.int16)
        self._from = 0  # position of the first kept sample

    def window(self, start: float) -> tuple[Sound, int, float]:
        """Return the clip from `start` on with its surroundings, its offset in it, and the seconds that it lacks.

        What sound lacks at the end of the last clip is silence, in the clip itself and around others.
        """
        first = round(start * self._rate)
        low = max(0, min(first - (self._length - self._size) // 2, self._end - self._length))
        high = min(low + self._length, self._end)
        more = high - self._from - len(self._kept)
        data = self._child.read(2 * more, 1) if more > 0 else b""
        new = _samples(data)
        self._kept = np.concatenate([self._kept[max(0, low - self._from) :], new])
        self._from = max(self._from, low)
        audio = self._kept[low - self._from : high - self._from]
        missing = max(0, first + self._size - low - len(audio))
        return np.pad(audio, (0, high - low - len(audio))), first - low, missing / self._rate


def _own_size(path: Path) -> tuple[int, int]:
    info = probe(path)
    if not info.width:
        raise MediaError(path, "no picture stream")
    return info.height, info.width


def _check_damage(path: Path, child: Child) -> None:
    if places := media_info.damage(child.new_errors()):
        raise MediaError(path, media_info.damaged(places))


def _check_end(path: Path, child: Child) -> None:
    if child.finish():
        raise MediaError(path, media_info.reason(child.errors()))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn a stall into an error that names the file."""
    try:
        yield
    except TimeoutError as error:
        raise MediaError(path, f"ffmpeg hangs: {error}") from error
