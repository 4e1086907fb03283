"""videos.parquet + annotation files -> clips.parquet: one row a second, with the boxes that are known in it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from dsol_core.config import ClipsConfig
from dsol_core.types import Box, Clip, DataError
from tasks.adapters.annotations import FrameBoxes, clipped_box, is_box_file, read_boxes, read_categories
from tasks.adapters.media_info import whole_clips
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact

logger = logging.getLogger(__name__)


@step
def index_clips(run: Run, videos: Artifact, media: Artifact | None, config: ClipsConfig) -> Artifact:
    """Cut the usable videos into clips of `config.duration` and give each the boxes of the frame it will show.

    Args:
        run: store and cluster.
        videos: of `ingest_videos`.
        media: where annotation files may lie beside the videos; None: there are none.
        config: of the clips.

    Raises (when run):
        DataError: an annotation file is not of its format, or no video is as long as a clip.
    """

    def write(out: StepOutput) -> None:
        from tasks.adapters import tables

        frames = _annotated(media) if media else {}
        counts: dict[str, int] = defaultdict(int)

        def clips() -> Iterator[Clip]:
            for video in tables.read(videos.file("videos.parquet")):
                if video["status"] == "ok":
                    yield from _clips(video, frames.pop(video["id"], []), config, counts)

        written = tables.write(out.folder / "clips.parquet", "clips", map(tables.clip_row, clips()))
        if not written:
            raise DataError(
                f"none of {counts['videos']} videos lasts {config.duration:g} s; give longer ones or a smaller "
                "data.clips.duration"
            )
        if frames:
            logger.info("boxes of %d videos that are not there left aside", len(frames))
        partial = counts["partial"]
        out.rows(read=written + partial, written=written, dropped={"final partial window": partial} if partial else {})
        out.metrics({name: counts[name] for name in ("videos", "annotated", "boxes", "boxes_lost")})

    return run.step("index_clips", config, {"videos": videos, **({"media": media} if media else {})}, write)


def _annotated(media: Artifact) -> dict[str, list[FrameBoxes]]:
    """Annotated frames by video, from every box file of the media."""
    names = media.files()
    found: dict[str, list[FrameBoxes]] = defaultdict(list)
    for name in filter(is_box_file, names):
        beside = str(PurePosixPath(name).with_name("categories.json"))
        categories = read_categories(media.file(beside) if beside in names else None)
        for frame in read_boxes(media.file(name), categories):
            found[frame.video_id].append(frame)
    return dict(found)


def _clips(
    video: Mapping[str, Any], frames: Sequence[FrameBoxes], config: ClipsConfig, counts: dict[str, int]
) -> Iterator[Clip]:
    whole = whole_clips(video["duration"], config.duration)
    counts["videos"] += 1
    counts["partial"] += video["duration"] > whole * config.duration
    nearest = _nearest(frames, config.duration)
    for number in range(whole):
        frame = nearest.get(number)
        boxes = [box for box in (_in_square(box, video, config) for box in frame.boxes) if box] if frame else []
        counts["annotated"] += bool(boxes)
        counts["boxes"] += len(boxes)
        counts["boxes_lost"] += frame.lost + len(frame.boxes) - len(boxes) if frame else 0
        start = number * config.duration
        yield Clip(
            id=f"{video['id']}_{round(start * 1000):08d}",
            video_id=video["id"],
            start=start,
            duration=config.duration,
            kind=video["kind"],
            split=video["split"],
            categories=tuple(video["categories"]),
            boxes=tuple(boxes),
        )


def _nearest(frames: Sequence[FrameBoxes], duration: float) -> dict[int, FrameBoxes]:
    """Of the annotated frames in each clip, the one nearest to its middle, where its picture is taken."""
    chosen: dict[int, FrameBoxes] = {}
    for frame in sorted(frames, key=lambda one: one.time):
        number = int(frame.time / duration + 1e-9)
        middle = (number + 0.5) * duration
        best = chosen.get(number)
        if best is None or abs(frame.time - middle) < abs(best.time - middle):
            chosen[number] = frame
    return chosen


def _in_square(box: Box, video: Mapping[str, Any], config: ClipsConfig) -> Box | None:
    """Move a box from the whole picture into the stored square, None where the crop leaves nothing of it."""
    if config.square == "resize":
        return box
    short = min(video["width"], video["height"])
    across, down = video["width"] / short, video["height"] / short
    return clipped_box(
        box.x * across - (across - 1) / 2,
        box.y * down - (down - 1) / 2,
        box.width * across,
        box.height * down,
        box.category,
        box.sounding,
    )
