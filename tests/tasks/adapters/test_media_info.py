from __future__ import annotations

from pathlib import Path

import pytest

from tasks.adapters.media_info import channels, damage, describe, read_streams, reason, whole_clips

LISTING = """\
#software: Lavf63.1.102
#tb 0: 1/1000
#media_type 0: video
#codec_id 0: h264
#dimensions 0: 720x576
#sar 0: 16/15
#tb 1: 1/8000
#media_type 1: audio
#codec_id 1: aac
#sample_rate 1: 8000
#channel_layout_name 1: 5.1(side)
1,      -1024,      -1024,     1024,      475, 0xa846e39a, F=0x5, S=1, Skip Samples,       10, 0x00240004
0,        -80,          0,       40,    10109, 0xc2bc6d91
0,        -40,         80,       40,     1104, 0x30e61783, F=0x0
0,          0,      NOPTS,       40,     1104, 0x30e61783, F=0x0
0,         40,         40,       40,      133, 0x73d3386a, F=0x0
1,          0,          0,     1200,      385, 0x85a2bca5
"""


def test_streams_are_described_from_their_packets() -> None:
    report = "  Duration: 00:00:00.12, start: 0.0\n      Display Matrix: rotation of -90.00 degrees\nStream mapping:\n"
    info = describe(Path("x.mkv"), read_streams(LISTING.splitlines()), report, measured=True)
    assert (info.width, info.height, info.rotation) == (576, 768, 90)
    assert info.frames == 4
    assert info.duration == pytest.approx(min(120 / 1000, 1200 / 8000))
    assert (info.sample_rate_hz, info.channels, info.codec_audio) == (8000, 6, "aac")
    assert info.problems == ()


def test_what_is_announced_and_not_there_is_truncation() -> None:
    report = "  Duration: 00:01:10.00, start: 0.0\n"
    info = describe(Path("x.mkv"), read_streams(LISTING.splitlines()), report, measured=True)
    assert info.problems == ("truncated: 70.0 s announced, packets end at 0.1 s",)
    assert describe(Path("x.mkv"), read_streams(LISTING.splitlines()), report, measured=False).duration == 70


def test_absurd_sizes_are_refused() -> None:
    listing = LISTING.replace("720x576", "30000x576").splitlines()
    (problem,) = describe(Path("x.mkv"), read_streams(listing), "", measured=False).problems
    assert "32000x576" in problem


@pytest.mark.parametrize(
    ("layout", "count"),
    [("mono", 1), ("stereo", 2), ("2.1", 3), ("5.1", 6), ("5.1(side)", 6), ("7.1", 8), ("quad", 4), ("5.1.2", 8),
     ("3 channels (FL+FR+LFE)", 3), ("12 channels", 12)],
)  # fmt: skip
def test_channels_of_ffmpegs_layout_names(layout: str, count: int) -> None:
    assert channels(layout) == count


@pytest.mark.parametrize(
    ("duration", "clip", "count"),
    [(3.0, 1.0, 3), (2.95, 1.0, 3), (2.9, 1.0, 2), (0.5, 1.0, 0), (3.0, 0.1, 30), (10.01, 2.5, 4)],
)
def test_whole_clips_allow_for_the_last_packet(duration: float, clip: float, count: int) -> None:
    assert whole_clips(duration, clip) == count


def test_damage_is_counted_and_the_reason_is_one_sentence() -> None:
    report = (
        "[h264 @ 0x55] corrupt decoded frame\n[aac @ 0x1] [dec:aac @ 0x2] Error submitting packet to decoder: x\nfine\n"
    )
    assert damage(report) == 2
    assert (
        reason("[mov @ 0x5] Detected creation time\n[in#0 @ 0x55] [x @ 0x1] Unknown cookie error\n")
        == "Unknown cookie error"
    )
    assert reason("[mov @ 0x5] moov atom not found\n").startswith("no index")
    assert reason("") == "ffmpeg ended without saying why"
