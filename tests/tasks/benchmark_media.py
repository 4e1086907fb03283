"""A tiny VGG-SS and VGGSound-Duet: annotation files, clips in several layouts, and a model that is not learnt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from tasks.adapters import images
from tasks.adapters.localizers import Model
from tests.tasks.conftest import Film

# Box: the left half, the upper left quarter, the right half, all of it.
BOXES = {
    "AAAAAAAAAAA_000030": ("playing cello", [[0, 0, 0.5, 1]]),
    "BBBBBBBBBBB_000000": ("playing cello", [[0, 0, 0.5, 0.5]]),
    "CCCCCCCCCCC_000100": ("dog barking", [[0.5, 0, 1, 1]]),
    "DDDDDDDDDDD_000007": ("people whistling", [[0, 0, 1, 1]]),
    "EEEEEEEEEEE_000005": ("dog barking", [[0, 0, 0.5, 1]]),
    "FFFFFFFFFFF_000005": ("dog barking", [[0, 0, 0.5, 1]]),
    "GGGGGGGGGGG_000020": ("playing cello", [[0, 0, 1, 0.5]]),
}
KEYS = list(BOXES)


def write_annotations(folder: Path, keys: list[str] | None = None) -> Path:
    """Write `vggss.json` and a duet of each clip with the next one."""
    chosen = keys or KEYS
    folder.mkdir(parents=True, exist_ok=True)
    records = [{"file": key, "class": BOXES[key][0], "bbox": BOXES[key][1]} for key in chosen]
    (folder / "vggss.json").write_text(json.dumps(records))
    pairs = zip(chosen, [*chosen[1:], chosen[0]], strict=True)
    rows = [f"{a},{BOXES[a][0].replace(' ', '_')},{b},{BOXES[b][0].replace(' ', '_')}" for a, b in pairs]
    (folder / "vggsound_duet_test.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_media(folder: Path, film: Film) -> Path:
    """Put five of the seven clips on disk, each in another layout; one of them is damaged, two are missing."""
    clip = film("tiny-clip.mp4", rate="4", seconds=10)
    whole = film("tiny-whole.mp4", rate="2", seconds=20)
    places = {
        "playing cello/AAAAAAAAAAA_000030.mp4": clip,
        "test/BBBBBBBBBBB_0_10000.mp4": clip,
        "GGGGGGGGGGG.mp4": whole,  # a whole video that ends before second 25
    }
    for name, source in places.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / name)
    for part in ("frames", "audio"):
        (folder / part).mkdir()
    frame = np.full((24, 32, 3), 200, np.uint8)
    (folder / "frames" / "DDDDDDDDDDD_000007.jpg").write_bytes(images.encode_jpeg(frame, 90))
    shutil.copy(film("tiny.wav", seconds=10, picture="", audio=()), folder / "audio" / "DDDDDDDDDDD_000007.wav")
    (folder / "CCCCCCCCCCC_100000_110000.mp4").write_bytes(b"cut off")
    return folder


SAID: list[tuple[tuple[int, ...], tuple[int, ...]]] = []  # shapes that `left_half` was asked about


def left_half(frames: np.ndarray, waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say that a cello is at the left and, half as strong, a dog too; both always sound."""
    SAID.append((frames.shape, waveforms.shape))
    maps = np.zeros((len(frames), 2, 4, 4), np.float32)
    maps[:, 0, :, :2] = 0.8
    maps[:, 1, :, :2] = 0.4
    return maps, np.tile(np.float32([0.9, 0.6]), (len(frames), 1))


def model(identity: str = "one") -> Model:
    """Return a model of the entries "cello" and "dog_barking"."""
    return Model(("cello", "dog_barking"), 16, 16000, left_half, identity=identity)
