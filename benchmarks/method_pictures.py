"""The pictures of docs/method.md: what is seen, what stage one lights, what stage two lights, in test scenes.

    python benchmarks/method_pictures.py --store runs --before EVALUATE_MARK --after EVALUATE_MARK --out docs/method

The marks are fingerprints of `evaluate` (see `dsol steps`), of a run without and of one with practice in hearing.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from lineage import found, parent

from dsol_core import checkpoint
from dsol_core.config import ExperimentConfig
from tasks.adapters import gallery, images, tables
from tasks.adapters.store import Artifact, Store
from tasks.evaluate import make_judge, read_frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--before", required=True)
    parser.add_argument("--after", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    store = Store(arguments.store)
    after = found(store, "evaluate", arguments.after)
    maps = {
        name: parent(store, found(store, "evaluate", mark), "predict_maps")
        for name, mark in (("stage-one", arguments.before), ("stage-two", arguments.after))
    }
    entries = checkpoint.load_dictionary(parent(store, after, "build_dictionary").file("dictionary.safetensors"))
    judge = make_judge(entries, ExperimentConfig())
    shards = parent(store, maps["stage-two"], "write_shards")
    chosen = {name: {"median": [item], "best": [], "worst": []} for name, item in quartiles(after).items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, predictions in maps.items():
        rows = gallery.find_rows(predictions.file("predictions.parquet"), chosen)
        heard = {item: (row, read_frame(row)) for item, row in rows.items()}
        seen = {item: (row, without_sound(frame)) for item, (row, frame) in heard.items()}
        for label, frames in (("seen", seen), (name, heard)):
            for picture in gallery.draw(chosen, frames, shards.folder, judge):
                path = arguments.out / f"{picture.benchmark}-{label}.jpg"
                path.write_bytes(images.encode_jpeg(gallery.strip(picture), 90))
                print(path, picture.item, picture.values)


def quartiles(report: Artifact) -> dict[str, str]:
    """Return of each kind of test scene the item whose strict IoU a quarter of the others surpass."""
    ranked: dict[str, list[tuple[float, str]]] = {}
    for row in tables.read(report.file("items.parquet")):
        if row["split"] == "test" and row["sciou"] is not None:
            ranked.setdefault(row["subset"], []).append((row["sciou"], row["item"]))
    return {name: sorted(items)[3 * len(items) // 4][1] for name, items in ranked.items()}


def without_sound(frame: Any) -> Any:
    """Return the frame with the maps as they are without listening."""
    return replace(frame, answer=replace(frame.answer, maps=frame.visual))


if __name__ == "__main__":
    main()
