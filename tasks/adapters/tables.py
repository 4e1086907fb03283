"""Parquet tables: the schemas of every artifact and the way rows become domain objects. Owner of pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dsol_core.types import Box, Clip, DataError, Scene

_TEXTS = pa.list_(pa.string())
_BOXES = pa.list_(
    pa.struct(
        [
            ("x", pa.float64()),
            ("y", pa.float64()),
            ("width", pa.float64()),
            ("height", pa.float64()),
            ("category", pa.string()),
            ("sounding", pa.bool_()),
        ]
    )
)
_HALVES = pa.list_(pa.float16())

# What is known of each test item, before thresholds and means.
ITEM_VALUES = (
    *("iou", "ciou", "sciou", "nsa", "snsa", "silent_nsa"),
    *("audio_top1", "audio_top2", "sounding_top2", "agreement", "heard"),
)
SCHEMAS: dict[str, pa.Schema] = {
    "videos": pa.schema(
        [
            ("id", pa.string()),
            ("path", pa.string()),  # relative to the media folder
            ("sha256", pa.string()),
            ("kind", pa.string()),
            ("split", pa.string()),
            ("categories", _TEXTS),
            ("duration", pa.float64()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("rotation", pa.int32()),
            ("frames_per_second", pa.float64()),
            ("variable_frame_rate", pa.bool_()),
            ("sample_rate_hz", pa.int32()),
            ("channels", pa.int32()),
            ("codec_video", pa.string()),
            ("codec_audio", pa.string()),
            ("status", pa.string()),  # ok, quarantined, missing
            ("reason", pa.string()),
        ]
    ),
    "clips": pa.schema(
        [
            ("id", pa.string()),
            ("video_id", pa.string()),
            ("start", pa.float64()),
            ("duration", pa.float64()),
            ("kind", pa.string()),
            ("split", pa.string()),
            ("categories", _TEXTS),
            ("boxes", _BOXES),
        ]
    ),
    "scenes": pa.schema(
        [
            ("id", pa.string()),
            ("clip_ids", _TEXTS),
            ("sounding", pa.list_(pa.bool_())),
            ("gains", pa.list_(pa.float64())),
            ("split", pa.string()),
        ]
    ),
    "dropped": pa.schema([("key", pa.string()), ("video_id", pa.string()), ("reason", pa.string())]),
    "history": pa.schema([("epoch", pa.int32()), ("name", pa.string()), ("value", pa.float64())]),
    "clusters": pa.schema([("key", pa.string()), ("cluster", pa.int32())]),
    "predictions": pa.schema(
        [
            ("item", pa.string()),
            ("subset", pa.string()),
            ("split", pa.string()),
            ("video_ids", _TEXTS),
            ("categories", _TEXTS),
            ("boxes", _BOXES),
            ("height", pa.int32()),
            ("width", pa.int32()),
            # [K, h, w] row-major, gated by the audio; the map of an entry that is hardly heard is 1e-8 and less, which
            # halves do not know, and CIoU asks for its shape
            ("maps", pa.list_(pa.float32())),
            ("visual", _HALVES),  # [K, h, w], without listening
            ("agnostic", _HALVES),  # [h, w]
            ("sounding", pa.list_(pa.float32())),  # [K]
            ("heard", pa.list_(pa.float32())),  # [K], without looking
        ]
    ),
    "negatives": pa.schema(  # a picture and a sound that none of its objects makes
        [
            ("item", pa.string()),
            ("subset", pa.string()),
            ("split", pa.string()),
            ("video_ids", _TEXTS),
            ("kind", pa.string()),  # silence, noise, offscreen
            ("other", pa.string()),  # whose sound it is; null
            ("rule", pa.string()),  # categories, videos: why it is off screen; null
            ("sounding", pa.list_(pa.float32())),  # [K]
            ("peak", pa.float32()),  # highest value of the gated maps
        ]
    ),
    "localized": pa.schema(  # of a user's video: a row a frame and class
        [
            ("time", pa.float64()),  # s
            ("class", pa.string()),
            ("sounding", pa.bool_()),
            *(
                (name, pa.float32())
                for name in ("probability", "x", "y", "width", "height", "peak_x", "peak_y", "peak")
            ),
        ]
    ),
    "maps": pa.schema(  # of any system on a benchmark: a row an item and class, an item's rows one after the other
        [
            ("item", pa.string()),  # the annotation's own key
            ("class", pa.string()),  # null: a class-agnostic map
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("map", pa.list_(pa.float32())),  # [height, width] row-major, in the network's own grid
            ("confidence", pa.float32()),  # or null
        ]
    ),
    "missing": pa.schema([("item", pa.string()), ("medium", pa.string()), ("cause", pa.string())]),
    "items": pa.schema(
        [
            ("item", pa.string()),
            ("subset", pa.string()),  # as in the benchmarks' names
            ("split", pa.string()),
            ("video_ids", _TEXTS),
            *((name, pa.float64()) for name in ITEM_VALUES),  # null where it cannot be had
            ("loudest", pa.string()),  # entry that sounds most
        ]
    ),
}


def write(
    path: Path,
    schema: str,
    rows: Iterable[Mapping[str, Any]],
    *,
    group: int = 1024,
    about: Mapping[str, str] | None = None,
) -> int:
    """Write rows to a Parquet file, `group` rows at a time, and return how many there were.

    Args:
        path: file to write.
        schema: a name in `SCHEMAS`.
        rows: mappings from column to value; a missing column becomes null.
        group: rows of a row group; no more than that are held in memory.
        about: facts for the file's metadata (see `about`).

    Raises:
        DataError: a value does not fit its column.
    """
    columns = SCHEMAS[schema].with_metadata(dict(about or {}) or None)
    count = 0
    pending: list[Mapping[str, Any]] = []
    with pq.ParquetWriter(path, columns, compression="zstd") as writer:

        def flush() -> None:
            try:
                writer.write_table(pa.Table.from_pylist(pending, schema=columns))
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise DataError(f"{path.name}: rows {count - len(pending)}-{count - 1}: {error}") from error
            pending.clear()

        for row in rows:
            pending.append(row)
            count += 1
            if len(pending) >= group:
                flush()
        if pending:
            flush()
    return count


def about(path: Path) -> dict[str, str]:
    """Return the facts in the metadata of a Parquet file, none where it cannot be read."""
    try:
        known = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return {}
    return {name.decode(): value.decode(errors="replace") for name, value in known.items()}


def read(path: Path, columns: list[str] | None = None, *, batch: int = 1024) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file as dicts, holding one batch in memory.

    Raises:
        DataError: the file is not a Parquet table.
    """
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read as a Parquet table ({error}); rerun the step that wrote it") from error
    for part in file.iter_batches(batch_size=batch, columns=columns):
        yield from part.to_pylist()


def read_numbers(path: Path, lists: str, columns: list[str], *, batch: int = 64) -> Iterator[dict[str, Any]]:
    """Yield rows of a Parquet file that anybody wrote, one column of which holds lists of numbers.

    Memory is that of a batch and of the pages it lies in, however large the file's row groups are.

    Args:
        path: of the file.
        lists: column whose values come as float32 arrays; a null among the numbers comes as NaN.
        columns: the others, as Python values.
        batch: rows held at a time.

    Raises:
        DataError: the file is not a Parquet table, lacks a column, or `lists` holds something else.
    """
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            for part in file.iter_batches(batch_size=batch, columns=[*columns, lists], use_threads=False):
                found = part.column(lists).cast(pa.list_(pa.float32()))
                numbers, ends = found.values.to_numpy(zero_copy_only=False), found.offsets.to_numpy()
                for place, row in enumerate(part.select(columns).to_pylist()):
                    yield {**row, lists: numbers[ends[place] : ends[place + 1]]}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a Parquet table ({error}); write it again") from error


def columns(path: Path) -> dict[str, str]:
    """Return the columns of a Parquet file: name -> type, as pyarrow calls it.

    Raises:
        DataError: the file is not a Parquet table.
    """
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a Parquet table ({error}); write it again") from error
    return {field.name: str(field.type) for field in schema}


def count(path: Path) -> int:
    """Return the number of rows without reading them."""
    return int(pq.read_metadata(path).num_rows)


def box(row: Mapping[str, Any]) -> Box:
    """Make a `Box` of a row's struct."""
    return Box(row["x"], row["y"], row["width"], row["height"], row["category"], row["sounding"])


def clips(path: Path) -> Iterator[Clip]:
    """Yield the clips of a `clips.parquet`."""
    for row in read(path):
        yield Clip(
            row["id"],
            row["video_id"],
            row["start"],
            row["duration"],
            row["kind"],
            row["split"],
            tuple(row["categories"]),
            tuple(box(one) for one in row["boxes"]),
        )


def clip_row(clip: Clip) -> dict[str, Any]:
    """Make a row of a clip."""
    return asdict(clip)


def scenes(path: Path) -> Iterator[Scene]:
    """Yield the scenes of a `scenes.parquet`."""
    for row in read(path):
        yield Scene(row["id"], tuple(row["clip_ids"]), tuple(row["sounding"]), tuple(row["gains"]), row["split"])


def scene_row(scene: Scene) -> dict[str, Any]:
    """Make a row of a scene."""
    return asdict(scene)


def write_history(path: Path, history: Iterable[Mapping[str, float]]) -> int:
    """Write one row per epoch and name from mappings that each hold an `epoch`."""
    return write(
        path,
        "history",
        (
            {"epoch": int(values["epoch"]), "name": name, "value": float(value)}
            for values in history
            for name, value in values.items()
            if name != "epoch"
        ),
    )
