"""Draw what sounds, and where, over any video. Not a step: the command line calls `localize`.

Two passes of constant memory. The first localises an even sequence of small frames, each with the sound
around it, and writes the table; the second draws the maps over the frames at the video's own size, shape and rate. Maps
wait in between in a temporary file: a few kilobytes per localised frame.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

from dsol_core import clip_windows
from dsol_core.types import DataError, UsageError
from tasks.adapters import heat_video, localizers, media, tables
from tasks.adapters.localizers import Floats, Model
from tasks.adapters.view import View

logger = logging.getLogger(__name__)

Progress = Callable[[float, float], None]

BATCH = 16  # frames localised at a time
SILENCE = 1e-4  # a window that stays below this (full scale = 1) is silent: nothing sounds
BOX_LEVEL = 0.5  # share of a map's own maximum that its box encloses
_FINE = 128  # cells a side of the enlarged map that boxes and peaks are read from
SOURCE = "dsol.video"  # in the table's metadata: the video that it is of
_MOST_FRAMES = 60.0  # a second of the drawn video


def localize(
    video: Path,
    model: str | Path,
    out: Path,
    *,
    frames_per_second: float = 4.0,
    threshold: float = 0.5,
    store: Path = Path("runs"),
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Write `<stem>.mp4` and `localizations.parquet` into a folder.

    The video has one coloured heat-map per sounding class, its name, and the original sound. The table has a row per
    localised frame and class: time, class, sounding, probability, the box (x, y, width, height; null where silent) that
    encloses the map's part above half of its maximum around the peak, and the peak (peak_x, peak_y, peak); places are
    fractions of the frame from its top left. Of a model whose clips were cropped to a square, only the middle square
    is localised and drawn over.

    Args:
        video: any length, size, shape and rate.
        model: "models:/<name>@<alias>", "models:/<name>/<version>", or a folder of train_stage_two.
        out: folder; made if need be.
        frames_per_second: frames that are localised; maps are interpolated between them.
        threshold: probability from which a class sounds.
        store: whose MLflow registry is asked, unless MLFLOW_TRACKING_URI names another.
        on_progress: hears how much of the whole work is done, as (done, total).

    Returns:
        {"video", "table": paths; "frames": localised ones; "rows"; "entries"; "sounding": seconds by class;
        "problems": what is wrong with the video}.

    Raises:
        UsageError: there is no such video, an argument is out of range, or the folder holds another video's results,
            or a video of the name that would be written.
        DataError: the video has no picture or no sound.
        CheckpointError: there is no such model.
        TrackingError: MLflow has no such model.
    """
    if not 0 < frames_per_second <= _MOST_FRAMES or not 0 < threshold < 1:
        raise UsageError(
            f"frames_per_second is {frames_per_second:g}, threshold {threshold:g}; expected 0 < frames_per_second <= "
            f"{_MOST_FRAMES:g} and 0 < threshold < 1"
        )
    info = _probe(video)
    target, table = out / f"{video.stem}.mp4", out / "localizations.parquet"
    if target.exists() and target.samefile(video):
        raise UsageError(f"{target} is the video itself; give another folder to --out")
    if target.exists() and not table.exists():
        raise UsageError(f"{target} exists and is none of dsol's results; give another folder to --out")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder")
    source = str(video.resolve())
    held = tables.about(table).get(SOURCE, "an unknown video") if table.exists() else source
    if held != source:
        raise UsageError(
            f"{out} holds the {table.name} of {held}; give another folder to --out, or delete that table and its video"
        )
    for problem in info.problems:
        logger.warning("%s: %s; what there is of it is localised", video.name, problem)
    loaded = localizers.load(model, store)
    out.mkdir(parents=True, exist_ok=True)
    report = _Halves(on_progress or (lambda done, total: None), max(info.duration, 1e-3))
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as name:
        work = Path(name)
        view = View.of(loaded, info.height, info.width)
        found = _Found(loaded.entries, frames_per_second, work, view)
        rows = found.rows(_localized(video, info.duration, loaded, found, report), threshold)
        count = tables.write(work / table.name, "localized", rows, about={SOURCE: source})
        rate = min(max(info.frames_per_second or frames_per_second, frames_per_second), _MOST_FRAMES)
        painter = heat_video.Painter(loaded.entries, found.maps(), found.sounding(), frames_per_second, threshold)
        media.annotated_video(
            work / target.name, _painted(video, rate, info.duration, painter, view, report), video, rate
        )
        (work / table.name).replace(table)  # first: it tells whose the video is, should this end between the two
        (work / target.name).replace(target)
    seconds = {name: int(n) / frames_per_second for name, n in zip(loaded.entries, found.counts, strict=True) if n}
    return {
        "video": str(target),
        "table": str(table),
        "frames": found.count,
        "rows": count,
        "entries": list(loaded.entries),
        "sounding": seconds,
        "problems": list(info.problems),
    }


def _probe(video: Path) -> Any:
    if not video.is_file():
        raise UsageError(f"there is no file {video}; give a video")
    info = media.probe(video)
    if not info.codec_video:
        raise DataError(f"{video.name} has no picture; give a video with picture and sound")
    if not info.codec_audio:
        raise DataError(f"{video.name} has no sound, and dsol localises what sounds; give a video with an audio track")
    whole = media.probe(video, check="packets")
    cut = any(one.startswith("truncated") for one in whole.problems)  # then the header promises more than there is
    return replace(info, duration=whole.duration if cut else info.duration, problems=whole.problems)


class _Found:
    """What the first pass finds: rows for the table; maps and probabilities, in files, for the second pass."""

    def __init__(self, entries: tuple[str, ...], frames_per_second: float, folder: Path, view: View) -> None:
        self.entries, self.frames_per_second, self.view = entries, frames_per_second, view
        self.count = 0
        self.counts = np.zeros(len(entries), int)
        self._maps, self._sounding = folder / "maps", folder / "sounding"
        self._shape: tuple[int, ...] = ()

    def rows(self, batches: Iterator[tuple[Floats, Floats]], threshold: float) -> Iterator[dict[str, Any]]:
        """Yield a row per frame and class, and keep the maps."""
        with self._maps.open("wb") as map_file, self._sounding.open("wb") as sounding_file:
            for maps, sounding in batches:
                self._shape = maps.shape[1:]
                map_file.write(maps.astype(np.float16).tobytes())
                sounding_file.write(sounding.astype(np.float32).tobytes())
                for values, probabilities in zip(maps, sounding, strict=True):
                    yield from self._frame(values, probabilities, probabilities >= threshold)

    def _frame(self, maps: Floats, probabilities: Floats, on: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
        time = self.count / self.frames_per_second
        self.count, self.counts = self.count + 1, self.counts + on
        for k, place in enumerate(places(maps, on)):
            yield {"time": time, "class": self.entries[k], "probability": float(probabilities[k])} | self.view.placed(
                place
            )

    def maps(self) -> NDArray[np.float16]:
        """Return all maps, [N, K, h, w], read from the file as they are used."""
        return np.memmap(self._maps, np.float16, "r", shape=(self.count, *self._shape))

    def sounding(self) -> Floats:
        """Return all probabilities, [N, K], read from the file as they are used."""
        return np.memmap(self._sounding, np.float32, "r", shape=(self.count, len(self.entries)))


def places(maps: Floats, sounding: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    """Yield for each entry the peak of its map and, where it sounds, the box around the peak.

    Args:
        maps: [K, h, w] in [0, 1].
        sounding: [K].
    """
    fine = F.interpolate(
        torch.from_numpy(np.ascontiguousarray(maps, np.float32))[None], (_FINE, _FINE), mode="bilinear"
    )
    for values, on in zip(fine[0].numpy(), sounding, strict=True):
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        peak = float(values[row, column])
        place: dict[str, Any] = {"sounding": bool(on), "peak": peak}
        place |= {"peak_x": (column + 0.5) / _FINE, "peak_y": (row + 0.5) / _FINE}
        if on:
            parts, _ = ndimage.label(values >= BOX_LEVEL * peak)
            (rows, columns), *_ = ndimage.find_objects((parts == parts[row, column]).astype(np.int8))
            place |= {"x": columns.start / _FINE, "width": (columns.stop - columns.start) / _FINE}
            place |= {"y": rows.start / _FINE, "height": (rows.stop - rows.start) / _FINE}
        yield place


def _localized(
    video: Path, duration: float, model: Model, found: _Found, report: _Halves
) -> Iterator[tuple[Floats, Floats]]:
    """Yield (maps [B, K, h, w], sounding [B, K]) of the video's frames, a batch at a time."""
    sound = SoundWindows(
        media.stream_audio(video, model.sample_rate_hz), model.sample_rate_hz, seconds=model.clip_seconds
    )
    frames: list[NDArray[np.uint8]] = []
    waves: list[Floats] = []
    loud: list[bool] = []

    def predicted() -> tuple[Floats, Floats]:
        maps, sounding = model.predict(np.stack(frames), np.stack(waves))
        heard = np.array(loud)[:, None]
        for one in (frames, waves, loud):
            one.clear()
        return maps * heard[..., None, None], sounding * heard

    for time, frame in _frames(video, found.frames_per_second, duration, found.view.scaled):
        frames.append(found.view.part(frame))
        own = sound.around(time)
        waves.append(own if model.windows == 1 else sound.between_neighbours(time))
        loud.append(bool(np.abs(own).max() >= SILENCE))
        if len(frames) == BATCH:
            yield predicted()
            report.first(time)
    if frames:
        yield predicted()


class SoundWindows:
    """The sound around increasing times, from a stream of which no more than that is kept."""

    def __init__(self, pieces: Iterator[NDArray[np.int16]], sample_rate_hz: int, *, seconds: float = 1.0) -> None:
        self._pieces, self._rate = pieces, sample_rate_hz
        self._length = round(seconds * sample_rate_hz)
        self._kept = np.zeros(0, np.int16)
        self._start = 0  # position of the first kept sample
        self._ended = False

    def around(self, time: float) -> Floats:
        """Return [S] in [-1, 1] centred on `time`, moved inside the sound at its ends; silence where there is none.

        Args:
            time: in seconds; never an earlier one than before.
        """
        first = self._first(time)
        piece = self._kept[max(0, first - self._start) : first - self._start + self._length]
        return _scaled(np.pad(piece, (0, self._length - len(piece))))

    def between_neighbours(self, time: float) -> Floats:
        """Return the same between its neighbours, [3 * S] (see `clip_windows.between_neighbours`)."""
        first = self._first(time)
        self._read(first + (2 if first >= self._length else 3) * self._length)
        kept = self._kept
        if len(kept) < first - self._start + self._length:
            kept = np.pad(kept, (0, first - self._start + self._length - len(kept)))
        return _scaled(clip_windows.between_neighbours(kept, first - self._start, self._length))

    def _first(self, time: float) -> int:
        """Return where the window of a time begins; the sound is read to its end, what is long past forgotten."""
        middle = round(time * self._rate)
        first = max(0, middle - self._length // 2)
        self._read(first + self._length)
        end = self._start + len(self._kept)
        if self._ended and middle <= end < first + self._length:
            first = max(0, end - self._length)
        self._forget(first - 2 * self._length)
        return first

    def _read(self, until: int) -> None:
        while not self._ended and self._start + len(self._kept) < until:
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
            else:
                self._kept = np.concatenate([self._kept, piece])

    def _forget(self, before: int) -> None:
        gone = min(max(0, before - self._start), len(self._kept))
        self._kept, self._start = self._kept[gone:], self._start + gone


def _scaled(samples: NDArray[np.int16]) -> Floats:
    return samples.astype(np.float32) / np.float32(32768)


def _frames(
    video: Path, rate: float, duration: float, size: tuple[int, int] | None = None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield (time, frame) for 0 <= time < duration; the last picture stays where the sound lasts longer."""
    frame, number = None, 0
    for time, frame in media.stream_frames(video, rate, size=size):
        if 0 < duration <= time:
            return
        number += 1
        yield time, frame
    while frame is not None and number / rate < duration:
        yield number / rate, frame
        number += 1


def _painted(
    video: Path, rate: float, duration: float, painter: heat_video.Painter, view: View, report: _Halves
) -> Iterator[NDArray[np.uint8]]:
    for time, frame in _frames(video, rate, duration):
        painted = painter.paint(view.part(frame), time)
        if painted.shape != frame.shape:
            whole = frame.copy()
            view.part(whole)[:] = painted
            painted = whole
        yield painted
        report.second(time)


class _Halves:
    """Progress over both passes."""

    def __init__(self, tell: Progress, duration: float) -> None:
        self._tell, self._duration = tell, duration

    def first(self, time: float) -> None:
        """Tell how far the first pass is."""
        self._tell(min(time, self._duration) / 2, self._duration)

    def second(self, time: float) -> None:
        """Tell how far the second pass is."""
        self._tell(self._duration / 2 + min(time, self._duration) / 2, self._duration)
