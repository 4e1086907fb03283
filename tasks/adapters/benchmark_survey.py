"""The list of benchmarks: what each needs, where it is obtained, how many of its items are on disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from dsol_core.protocols import Protocol
from dsol_core.types import DataError, UsageError
from tasks.adapters import benchmarks
from tasks.adapters.benchmark_maps import Lack, find_media, named_clips
from tasks.adapters.media_layouts import Library


def survey(annotations: Path | None, data: Path | None) -> list[dict[str, Any]]:
    """Describe the benchmarks, and how many of their items are on disk.

    Args:
        annotations: folder of annotation files; None: none are looked for.
        data: folder of media; needs the annotations.

    Returns:
        A row a benchmark: "name", "title", "row", "kind", "metrics", "annotations" (files), "media", "measures",
        "trap", "items", "videos" (None without annotations), "annotations_state" ("" where none were looked for,
        "found", or what is wrong), "on_disk" (items whose media are all there; None where not looked for), "missing"
        (cause -> items).

    Raises:
        UsageError: `data` without annotations, or a folder that is none.
    """
    if data is not None and annotations is None:
        raise UsageError("--data needs --annotations: the annotation files name the media; give both")
    library = Library(data) if data is not None else None
    return [_surveyed(protocol, annotations, library) for protocol in benchmarks.all_protocols()]


def _surveyed(protocol: Protocol, annotations: Path | None, library: Library | None) -> dict[str, Any]:
    names = ("name", "title", "row", "kind", "metrics", "annotations", "media", "measures", "trap", "items")
    row = {name: getattr(protocol, name) for name in names}
    row |= {"videos": None, "annotations_state": "", "on_disk": None, "missing": {}}
    if annotations is None:
        return row
    try:
        reading = benchmarks.read_items(protocol, annotations)
    except DataError as error:
        return row | {"annotations_state": str(error)}
    row |= {"items": len(reading), "videos": len({name for item in reading for name in item.videos})}
    row["annotations_state"] = "found"
    if library is not None:
        clips = named_clips(protocol)
        found = list(find_media(reading, library, protocol.correct.mix, clips=clips))
        lacks = Counter(one.cause for one in found if isinstance(one, Lack))
        row |= {"on_disk": len(found) - lacks.total(), "missing": dict(lacks.most_common())}
    return row
