"""What a sample is known to show: an off-screen sound must be of nothing in the picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsol_core.types import Scene
from tasks.adapters.negatives import candidate
from tasks.adapters.samples import scene_sample
from tasks.adapters.shards import Sample, array_bytes


def box(category: str | None) -> dict[str, Any]:
    return {"x": 0.1, "y": 0.1, "width": 0.5, "height": 0.5, "category": category, "sounding": True}


def clip(name: str, categories: list[str], *boxed: str | None) -> Sample:
    meta = {"key": name, "video_ids": [name], "categories": categories, "boxes": [box(one) for one in boxed]}
    meta |= {"kind": "solo", "duration": 1.0, "offset": 0, "height": 8, "width": 8}
    return Sample(name, meta, {"frame0.jpg": b"picture", "audio.npy": array_bytes(np.zeros(16000, np.int16))})


def scene(*parts: Sample) -> Sample:
    keys, on = tuple(part.key for part in parts), (True, False, True, False)
    return scene_sample(Scene("scene", keys, on, (1.0,) * 4, "test"), parts)


CELLO, HARP = clip("a", ["cello"], "cello"), clip("b", ["harp"])
TUBA, BARE = clip("c", [], "tuba"), clip("d", [], None)


def test_a_scene_shows_what_its_silent_parts_show_boxed_or_not() -> None:
    found = candidate(scene(CELLO, HARP, TUBA, CELLO))
    assert found.heard == {"cello", "tuba"} and found.visible == {"cello", "harp", "tuba"}
    harp = candidate(HARP)
    assert found.rule(harp) is None, "the silent harp has no box, and is in the picture all the same"


def test_with_a_part_that_nobody_named_it_is_not_known_what_a_scene_shows() -> None:
    assert candidate(scene(CELLO, HARP, BARE, TUBA)).visible is None


def test_other_samples_show_what_is_boxed() -> None:
    assert candidate(clip("e", ["cello"], "cello", "flute")).visible == {"cello", "flute"}
    assert candidate(HARP).visible is None
