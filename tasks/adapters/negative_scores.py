"""negatives.parquet + predictions -> whether anything sounds: scores by split, and what has to be said about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dsol_core.negatives import BY_VIDEO, SUBSETS
from dsol_core.operating import POSITIVE, Detections, OperatingPoint
from tasks.adapters import tables
from tasks.adapters.store import Artifact

if TYPE_CHECKING:
    from dsol_core.benchmarks import Frame


def read(predictions: Artifact) -> tuple[dict[str, Detections], dict[str, Counter[str]]]:
    """Read the negatives of predictions: scores by split ("val", "test"), and of each split rule -> off-screen sounds.

    Predictions without the file have none.

    Raises:
        DataError: the file is damaged, or holds values that are not finite.
    """
    found = {split: Detections() for split in ("val", "test")}
    rules = {split: Counter[str]() for split in found}
    path = predictions.folder / "negatives.parquet"
    for row in tables.read(path) if path.is_file() else ():
        found[row["split"]].add(row["kind"], row["item"], row["video_ids"], row["peak"], row["sounding"])
        rules[row["split"]].update([row["rule"]] if row["rule"] else [])
    return found, rules


def add_positive(found: Mapping[str, Detections], row: Mapping[str, Any], frame: Frame) -> None:
    """Add what a row of the predictions says to its own sound, where its picture is asked with negatives too."""
    if row["subset"] in SUBSETS:
        answer = frame.answer
        found[row["split"]].add(POSITIVE, row["item"], row["video_ids"], float(answer.maps.max()), answer.sounding)


def left_out(prefix: str, test: Detections, rules: Counter[str], point: OperatingPoint | None) -> dict[str, str]:
    """Return what could not be measured, or is less sure than it looks: metric -> reason.

    Args:
        prefix: of the metrics' names.
        test: scores of the test split.
        rules: by which its off-screen sounds were chosen.
        point: the operating point, None where there is none.
    """
    if point is None:
        return {
            f"{prefix}*": "no validation pictures with several objects and negative sounds to choose a threshold on"
        }
    counts = Counter(test.kinds)
    pictures, sounds = counts[POSITIVE], counts["offscreen"]
    if not pictures:
        return {f"{prefix}*": "no pictures with several objects in the test split"}
    told = []
    if sounds < pictures:
        told.append(
            f"{pictures - sounds} of {pictures} pictures have no off-screen sound: all that is heard elsewhere in "
            "their split is also in the picture, or of the same videos"
        )
    if rules[BY_VIDEO]:
        told.append(
            f"{rules[BY_VIDEO]} of {sounds} off-screen sounds are only known to be of another video: where the same "
            "object is in the picture, the alarm is not false"
        )
    return {f"{prefix}false_alarm_offscreen": "; ".join(told)} if told else {}
