"""What a media file holds, read from what ffmpeg prints about it. Pure parsing: no process, no ffmpeg library.

`ffmpeg -i FILE -c copy -f framecrc -` lists a file's streams and packets on its standard output and describes the file
on its standard error; there is no ffprobe beside the ffmpeg that pip installs.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

# Sound and picture of one file seldom end together (an AAC frame lasts up to 64 ms): a clip may lack this much.
TOLERANCE = 0.07  # seconds
_LARGEST_OFFSET = 0.5  # seconds between the starts of picture and sound; more and the first clips lack one of them
_LARGEST_SIDE = 8192  # pixels; more is a decompression bomb or no picture
_CHANNELS = {
    "mono": 1,
    "stereo": 2,
    "downmix": 2,
    "quad": 4,
    "quad(side)": 4,
    "hexagonal": 6,
    "octagonal": 8,
    "cube": 8,
}
# What ffmpeg prints when a decoder gave up on a packet, or a container ended before its index said so.
DAMAGE = (
    "corrupt decoded frame",
    "Error submitting packet to decoder",
    "Decoding error",
    "partial file",
    "File ended prematurely",
)
_REASONS = (
    ("moov atom not found", "no index (moov atom): cut off while being written, or not a video"),
    ("matches no streams", "a stream is missing: expected one picture and one sound stream"),
    ("does not contain any stream", "neither picture nor sound in it"),
    ("not on whitelist", "a format or protocol that dsol does not open"),
    ("Invalid data found", "not a video in a format that ffmpeg reads"),
)


@dataclass(frozen=True)
class MediaInfo:
    """A media file. Zero and None stand for what it does not have.

    Attributes:
        path: as it was given.
        duration: seconds from the start of the file that picture and sound both last; as its header says, or
            measured where the packets were read.
        width: pixels of the upright picture, made square.
        height: pixels of the upright picture, made square.
        rotation: degrees, clockwise, by which the stored picture is turned to be upright: 0, 90, 180, 270.
        frames_per_second: mean rate of the picture.
        variable_frame_rate: whether frames follow each other at uneven times; False where only the header was read.
        codec_video: ffmpeg's name, None without a picture.
        codec_audio: ffmpeg's name, None without sound.
        sample_rate_hz: of the sound as stored.
        channels: of the sound as stored.
        frames: frames of the picture, 0 where only the header was read.
        problems: why the file should not be used, most telling first.
    """

    path: str
    duration: float = 0.0
    width: int = 0
    height: int = 0
    rotation: int = 0
    frames_per_second: float = 0.0
    variable_frame_rate: bool = False
    codec_video: str | None = None
    codec_audio: str | None = None
    sample_rate_hz: int = 0
    channels: int = 0
    frames: int = 0
    problems: tuple[str, ...] = ()


@dataclass
class Stream:
    """One stream of a framecrc listing; packet times are kept as 64-bit integers, 8 bytes a packet."""

    facts: dict[str, str] = field(default_factory=dict)
    times: array[int] = field(default_factory=lambda: array("q"))
    end: int = 0

    @property
    def base(self) -> Fraction:
        """Seconds of a tick of its clock."""
        return Fraction(self.facts.get("tb", "1/1"))

    def seconds(self) -> tuple[float, float]:
        """Return when the stream begins and ends."""
        if not self.times:
            return 0.0, 0.0
        return max(0.0, float(min(self.times) * self.base)), float(self.end * self.base)


def read_streams(listing: Iterable[str]) -> dict[str, Stream]:
    """Collect the streams of a `-c copy -f framecrc -` listing, by number, from its lines."""
    streams: dict[str, Stream] = {}
    for line in listing:
        _take(line, streams)
    return streams


def describe(path: Path, streams: dict[str, Stream], report: str, *, measured: bool) -> MediaInfo:
    """Describe a file from its streams and what ffmpeg reported beside them.

    Args:
        path: of the file.
        streams: from `read_streams`.
        report: the standard error, at `-loglevel repeat+info`.
        measured: whether the listing is complete, so that durations and rates are taken from it.
    """
    picture = next((s for s in streams.values() if s.facts.get("media_type") == "video"), None)
    sound = next((s for s in streams.values() if s.facts.get("media_type") == "audio"), None)
    width, height = _size(picture, rotation := _rotation(report))
    rate, variable = _rate(picture) if measured and picture else (_header_rate(report), False)
    declared = _header_duration(report)
    duration = min((s.seconds()[1] for s in (picture, sound) if s), default=0.0) if measured else declared
    problems = _problems(streams, width, height)
    if measured:
        problems += _faults(picture, sound, declared, report)
    return MediaInfo(
        str(path),
        duration,
        width,
        height,
        rotation,
        rate,
        variable,
        picture.facts.get("codec_id") if picture else None,
        sound.facts.get("codec_id") if sound else None,
        int(sound.facts.get("sample_rate", 0)) if sound else 0,
        channels(sound.facts.get("channel_layout_name", "")) if sound else 0,
        len(picture.times) if picture and measured else 0,
        tuple(problems),
    )


def whole_clips(duration: float, clip: float) -> int:
    """Return how many whole clips of `clip` seconds a file of `duration` seconds holds."""
    return int((duration + TOLERANCE) / clip)


def channels(layout: str) -> int:
    """Return the number of channels of ffmpeg's name for a layout ("mono", "5.1(side)", "3 channels (FL+FR+LFE)")."""
    if layout in _CHANNELS:
        return _CHANNELS[layout]
    if match := re.match(r"(\d+) channels", layout):
        return int(match[1])
    return sum(int(digit) for digit in layout.split("(")[0].split(".") if digit.isdigit())


def reason(report: str) -> str:
    """Return the one sentence that says why ffmpeg gave up, from its standard error."""
    for sign, text in _REASONS:
        if sign in report:
            return text
    lines = [re.sub(r"^(\[[^\]]*\] ?)+", "", line).strip() for line in report.splitlines()]
    telling = [line for line in lines if re.search(r"error|invalid|fail|could not|unable|unknown", line, re.IGNORECASE)]
    return next(iter(telling), "ffmpeg ended without saying why")


def damage(report: str) -> int:
    """Return how many damaged places ffmpeg's standard error names.

    What it says itself begins with who says it, in brackets; the file's own tags and path are there too, indented.
    """
    return sum(any(sign in line for sign in DAMAGE) for line in report.splitlines() if line.startswith("["))


def damaged(places: int) -> str:
    """Return the reason that names so many damaged places."""
    return f"damaged: the decoders report {places} bad place{'s' if places > 1 else ''}"


def _take(line: str, streams: dict[str, Stream]) -> None:
    if line.startswith("#"):
        name, _, value = line[1:].partition(":")
        word, _, number = name.partition(" ")
        if number:
            streams.setdefault(number, Stream()).facts[word] = value.strip()
    elif line:
        number, decoded, shown, length, _ = line.split(",", 4)
        time = int(decoded if "NOPTS" in shown else shown)
        stream = streams[number]
        stream.times.append(time)
        stream.end = max(stream.end, time + max(0, int(length)))


def _rotation(report: str) -> int:
    match = re.search(r"^ +display ?matrix: rotation of (-?[\d.]+)", report.split("Stream mapping:")[0], re.I | re.M)
    return round(-float(match[1])) % 360 if match else 0  # ffmpeg prints the angle counter-clockwise


def _size(picture: Stream | None, rotation: int) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", picture.facts.get("dimensions", "")) if picture else None
    if not match or not picture:
        return 0, 0
    up, down = (int(part) for part in picture.facts.get("sar", "0/1").split("/"))
    width, height = round(int(match[1]) * (up / down if up and down else 1)), int(match[2])
    return (height, width) if rotation in (90, 270) else (width, height)


def _header_duration(report: str) -> float:
    match = re.search(r"^  Duration: (\d+):(\d+):([\d.]+)", report, re.M)  # tags are indented further
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else 0.0


def _header_rate(report: str) -> float:
    match = re.search(r"^  Stream #.*?Video: .*?([\d.]+)(k?) (?:fps|tbr)", report, re.M)
    return float(match[1]) * (1000 if match[2] else 1) if match else 0.0


def _rate(picture: Stream) -> tuple[float, bool]:
    """Return the mean rate and whether more than one interval in fifty is not the usual one."""
    times = np.sort(np.frombuffer(picture.times, dtype=np.int64)) * float(picture.base)
    if len(times) < 2:
        begin, end = picture.seconds()
        return (len(times) / (end - begin) if end > begin else 0.0), False
    steps = np.diff(times)
    usual = float(np.median(steps))
    odd = float(np.mean(np.abs(steps - usual) > 0.1 * usual + 0.0015))  # containers round to 1 ms
    return (len(steps) / float(times[-1] - times[0]) if times[-1] > times[0] else 0.0), odd > 0.02


def _problems(streams: dict[str, Stream], width: int, height: int) -> list[str]:
    kinds = {stream.facts.get("media_type") for stream in streams.values()}
    problems = [f"no {name} stream" for kind, name in (("video", "picture"), ("audio", "sound")) if kind not in kinds]
    if "video" in kinds and not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        problems.append(f"picture size: {width}x{height} pixels, expected 1 to {_LARGEST_SIDE} a side")
    return problems


def _faults(picture: Stream | None, sound: Stream | None, declared: float, report: str) -> list[str]:
    """Return what reading the whole file brought to light."""
    faults = []
    spans = [stream.seconds() for stream in (picture, sound) if stream]
    end = max((span[1] for span in spans), default=0.0)
    said = [line for line in report.splitlines() if line.startswith("[")]
    ended = any("partial file" in line or "File ended prematurely" in line for line in said)
    if ended or end < declared - max(0.5, 0.02 * declared):
        faults.append(f"truncated: {declared:.1f} s announced, packets end at {end:.1f} s")
    if places := damage(report):
        faults.append(damaged(places))
    if any(begin >= stop for begin, stop in spans):
        faults.append("empty stream: a stream without a single packet")
    elif len(spans) == 2 and abs(spans[0][0] - spans[1][0]) > _LARGEST_OFFSET:
        faults.append(f"late stream: picture starts at {spans[0][0]:.2f} s, sound at {spans[1][0]:.2f} s")
    return faults
