"""How decoded clips and composed scenes become the samples of a shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsol_core.config import ClipsConfig
from dsol_core.types import DataError, Scene
from tasks.adapters import images, media
from tasks.adapters.shards import Sample, array_bytes, pictures, waveform, windows

Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A video and the rows of its clips; `problem` says why it cannot be opened."""

    video: Row
    path: str
    rows: tuple[Row, ...]
    problem: str | None = None


def decode_source(source: Source, config: ClipsConfig, dropped: list[Row]) -> Iterator[Sample]:
    """Yield the samples of a video's clips; those that cannot be decoded are added to `dropped` with the reason."""
    wanted = {round(row["start"] / config.duration): row for row in source.rows}
    reason = source.problem or "shorter than its index: the video ended before these clips"
    try:
        if source.problem is None:
            for clip in media.decode(Path(source.path), config, duration=source.video["duration"]):
                row = wanted.pop(clip.index, None)
                if row is not None:
                    yield clip_sample(row, clip, config)
                if not wanted:
                    break
    except DataError as error:
        reason = getattr(error, "reason", str(error))
    dropped += [{"key": row["id"], "video_id": row["video_id"], "reason": reason} for row in wanted.values()]


def clip_sample(row: Row, clip: media.DecodedClip, config: ClipsConfig) -> Sample:
    """Make the sample of a decoded clip; its boxes are already those of the stored square."""
    encoded = [images.encode_jpeg(frame, config.jpeg_quality) for frame in clip.frames]
    members = {f"frame{number}.jpg": picture for number, picture in enumerate(encoded)}
    meta = {
        "key": row["id"],
        "video_ids": [row["video_id"]],
        "kind": row["kind"],
        "split": row["split"],
        "categories": row["categories"],
        "boxes": row["boxes"],
        "start": row["start"],
        "duration": row["duration"],
        "offset": clip.offset,
        "height": clip.frames.shape[1],
        "width": clip.frames.shape[2],
    }
    return Sample(row["id"], meta, {**members, "audio.npy": array_bytes(clip.audio)})


def scene_sample(scene: Scene, parts: Sequence[Sample]) -> Sample:
    """Make a scene's sample of its four clips: their pictures' bytes, their mixed sound, their boxes moved.

    The sound is that of the clips between their neighbours; where a video has fewer than three, its own comes again.
    """
    import torch

    from dsol_core import audio

    heard = [[waveform(window) for window in windows(part)] for part in parts]
    alone = all(len(some) == 1 for some, on in zip(heard, scene.sounding, strict=True) if on)
    order = [0] if alone else [1, 0, 2]  # a clip's own window is the first
    sounds = np.stack([np.concatenate([some[place % len(some)] for place in order]) for some in heard])
    gains = torch.tensor([gain if on else 0.0 for gain, on in zip(scene.gains, scene.sounding, strict=True)])
    size = len(heard[0][0])
    offset = size * order.index(0)
    mixed = audio.mix(torch.from_numpy(sounds)[None], gains[None], slice(offset, offset + size))[0].numpy()
    members = {f"part{i}.jpg": _middle(part.members, pictures(part)) for i, part in enumerate(parts)}
    sounding = [part for part, on in zip(parts, scene.sounding, strict=True) if on]
    first = parts[0].meta
    meta = {
        "key": scene.id,
        "video_ids": [part.meta["video_ids"][0] for part in parts],
        "kind": "grid",
        "split": scene.split,
        "categories": sorted({name for part in sounding for name in part.meta["categories"]}),
        "visible": _visible(parts),
        "boxes": [box for i, part in enumerate(parts) for box in _tiled(part.meta["boxes"], i, scene.sounding[i])],
        "start": 0.0,
        "duration": first["duration"],
        "offset": offset,
        "height": first["height"],
        "width": first["width"],
    }
    sound = np.round(np.clip(mixed, -1, 1) * 32767).astype(np.int16)
    return Sample(scene.id, meta, {**members, "audio.npy": array_bytes(sound)})


def _visible(parts: Sequence[Sample]) -> list[str] | None:
    """Return the classes that a scene shows, sounding or not; None where a part has neither label nor named box."""
    shown = [
        {*part.meta["categories"], *(box["category"] for box in part.meta["boxes"] if box["category"])}
        for part in parts
    ]
    return sorted(set().union(*shown)) if all(shown) else None


def _middle(members: Mapping[str, bytes], names: list[str]) -> bytes:
    return members[names[len(names) // 2]]


def _tiled(boxes: Iterable[Row], part: int, sounding: bool) -> Iterator[Row]:
    """Move a part's boxes into its tile of the composed frame."""
    row, column = divmod(part, 2)
    for box in boxes:
        place = {"x": (box["x"] + column) / 2, "y": (box["y"] + row) / 2}
        size = {"width": box["width"] / 2, "height": box["height"] / 2}
        yield {**box, **place, **size, "sounding": bool(box["sounding"] and sounding)}
