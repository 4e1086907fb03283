"""Generator, or photographs + recordings -> MP4 files and annotations, laid out like the published MUSIC data set."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dsol_core.config import OrchestraConfig, VideosConfig
from dsol_core.types import SPLITS, Box, DataError, Split
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact

if TYPE_CHECKING:
    from numpy.random import Generator

    from tasks.adapters.music_files import MadeVideo
    from tasks.adapters.photo_folder import Pair, Photo, Recording

_CHUNK = 10  # videos of a Ray task: about a second of work
_SOUND_HZ = 16000  # of videos of photographs
_LOOSE = Box(0.1, 0.1, 0.8, 0.8)  # of a photograph whose object nobody has marked


@dataclass(frozen=True)
class Footage:
    """A photograph, the box of its object, and a window of a recording in seconds."""

    photo: Path
    box: Box
    recording: Path
    start: float
    seconds: float


@dataclass(frozen=True)
class Job:
    """A video to make. Its randomness starts from `entropy` alone, whatever is made beside it."""

    id: str
    kind: Literal["solo", "multi"]
    split: Split
    category: str | None  # None: a cocktail party
    entropy: tuple[int, ...]
    footage: Footage | None = None  # None: drawn


@dataclass(frozen=True)
class LostVideo:
    """A video that could not be made, the reason that it is counted under, and which file is to blame for what."""

    id: str
    reason: str
    detail: str


class FootageError(DataError):
    """A photograph or recording that cannot be used; the first argument is the reason, the second names the file."""


@dataclass(frozen=True)
class Chunk:
    """The work of one Ray task."""

    jobs: tuple[Job, ...]
    config: VideosConfig
    folder: Path


@step
def make_videos(run: Run, config: VideosConfig, seed: int, photos: Artifact | None = None) -> Artifact:
    """Make the drawn orchestra's videos, or videos of photographs with recordings, and their annotation files.

    Raises:
        DataError: `config.source` makes no videos or lacks its folder; when run: a class has too few files, or a larger
            share than `config.max_quarantined` of files or videos cannot be used.
        SoundFontError: when run: the drawn orchestra needs the extra `demo`.
    """
    if config.source not in ("orchestra", "photos"):
        raise DataError(f"videos.source is {config.source!r}, whose videos exist; expected 'orchestra' or 'photos'")
    if config.source == "photos" and photos is None:
        raise DataError("videos.source is 'photos' but no folder was given; name it with --data FOLDER")
    folder = photos if config.source == "photos" else None

    def write(out: StepOutput) -> None:
        from tasks.adapters import cluster, music_files, soundfont
        from tasks.adapters.store import write_json

        if folder:
            jobs, notes = plan_photos(folder, config, seed)
        else:
            soundfont.check()
            jobs, notes = plan_orchestra(config.orchestra, seed), {"videos": {}, "dropped": []}
        made: list[MadeVideo] = []
        lost: list[LostVideo] = []
        for videos in cluster.map_tasks(film_chunk, _chunks(jobs, config, out.work), compute=run.compute):
            made += [one for one in videos if not isinstance(one, LostVideo)]
            lost += [one for one in videos if isinstance(one, LostVideo)]
            out.progress(len(made) + len(lost), len(jobs), "filming")
        _check_share(len(lost), len(jobs), "videos", config, [one.detail for one in lost])
        notes["dropped"] += [
            {"video": one.id, **notes["videos"].pop(one.id), "reason": one.reason, "detail": one.detail} for one in lost
        ]
        if folder:
            write_json(out.folder / "sources.json", notes)
        for video in made:
            (out.folder / video.kind).mkdir(exist_ok=True)
            (out.work / f"{video.id}.mp4").rename(out.folder / video.kind / f"{video.id}.mp4")
        music_files.write_annotations(out.folder, made, config.photos.side if folder else config.orchestra.side)
        dropped = Counter(str(one["reason"]) for one in notes["dropped"])
        out.rows(read=len(made) + dropped.total(), written=len(made), dropped=dropped)

    return run.step("make_videos", config, {"photos": folder} if folder else {}, write, seed=seed)


def plan_orchestra(config: OrchestraConfig, seed: int) -> list[Job]:
    """Return the solos of each class and the cocktail parties of each split."""
    from dsol_core.instruments import CATEGORIES

    jobs = []
    for place, split in enumerate(SPLITS):
        for number in range(config.solo_per_category[place]):
            for row, category in enumerate(CATEGORIES):
                entropy = (seed, 0, place, number, row)
                jobs.append(Job(_video_id(entropy), "solo", split, category, entropy))
        for number in range(config.multi[place]):
            party = (seed, 1, place, number)
            jobs.append(Job(_video_id(party), "multi", split, None, party))
    return _unique(jobs, seed)


def plan_photos(folder: Artifact, config: VideosConfig, seed: int) -> tuple[list[Job], dict[str, Any]]:
    """Return the solos of each class, and what `sources.json` tells: who got what, and what each video is made of.

    Raises:
        DataError: a class has too few files, or too large a share of the manifest's files cannot be used.
    """
    import numpy as np

    from tasks.adapters import photo_folder

    boxes = folder.file("boxes_auto.csv") if "boxes_auto.csv" in folder.files() else None
    found = photo_folder.read_sources(folder.file("manifest.csv"), boxes)
    jobs: list[Job] = []
    rows = sum(len(photos) + len(recordings) for photos, recordings in found.values())
    found, unusable = _usable(folder, found)
    _check_share(len(unusable), rows, "files of manifest.csv", config, [one["file"] for one in unusable])
    notes: dict[str, Any] = {"classes": {}, "videos": {}, "dropped": unusable}
    for row, (category, (photos, recordings)) in enumerate(found.items()):
        rng = np.random.default_rng([seed, 2, row])
        sources = photo_folder.split_sources(category, photos, recordings, config.split, rng)
        notes["classes"][category] = sources.summary()
        for place, split in enumerate(SPLITS):
            rng = np.random.default_rng([seed, 3, place, row])
            for number, pair in enumerate(sources.pairs(split, config.photos.videos_per_category[place], rng)):
                entropy = (seed, 4, place, number, row)
                job = Job(_video_id(entropy), "solo", split, category, entropy, _footage(folder, pair, config, rng))
                notes["videos"][job.id] = {"category": category, "split": split, **_credits(pair, job)}
                jobs.append(job)
    notes["classes_without_uninterrupted_test"] = [
        name for name, one in notes["classes"].items() if not one["uninterrupted_test"]
    ]
    notes["classes_with_test_notes_in_training"] = [
        name for name, one in notes["classes"].items() if one["test_notes_in_training"]
    ]
    return _unique(jobs, seed), notes


def _usable(
    folder: Artifact, found: dict[str, tuple[list[Photo], list[Recording]]]
) -> tuple[dict[str, tuple[list[Photo], list[Recording]]], list[dict[str, Any]]]:
    """Leave out rows of the manifest whose file does not exist or whose length is unknown; return those too."""
    from tasks.adapters.store import StoreError

    unusable: list[dict[str, Any]] = []

    def fits(category: str, one: Photo | Recording) -> bool:
        reason = "no length in the manifest" if math.isnan(getattr(one, "seconds", 0.0)) else None
        try:
            folder.file(one.file)
        except StoreError:
            reason = "no such file"
        if reason:
            unusable.append({"category": category, "file": one.file, "reason": reason})
        return not reason

    kept = {
        name: ([one for one in photos if fits(name, one)], [one for one in recordings if fits(name, one)])
        for name, (photos, recordings) in found.items()
    }
    return kept, unusable


def _check_share(lost: int, total: int, what: str, config: VideosConfig, examples: Sequence[str]) -> None:
    if lost > config.max_quarantined * total:
        raise DataError(
            f"{lost} of {total} {what} cannot be used (expected at most {config.max_quarantined:.0%}), the first: "
            f"{examples[0]}; mend or remove them, or raise data.videos.max_quarantined"
        )


def _footage(folder: Artifact, pair: Pair, config: VideosConfig, rng: Generator) -> Footage:
    photo, recording = pair
    seconds = min(config.photos.seconds, recording.seconds)
    start = float(rng.uniform(0, recording.seconds - seconds))
    return Footage(folder.file(photo.file), photo.box or _LOOSE, folder.file(recording.file), start, seconds)


def _credits(pair: Pair, job: Job) -> dict[str, Any]:
    photo, recording = pair
    return {
        "photo": photo.file,
        "loose_box": photo.box is None,
        "recording": recording.file,
        "recording_source": recording.source,
        "phrase": recording.phrase,
        "start": round(job.footage.start, 3) if job.footage else None,
    }


def film_chunk(chunk: Chunk) -> list[MadeVideo | LostVideo]:
    """Make the videos of a chunk that are not there yet; return what they show. Runs as a Ray task.

    A video whose photograph or recording cannot be read is lost; anything else that fails ends the run.
    """
    found: list[MadeVideo | LostVideo] = []
    for job in chunk.jobs:
        try:
            found.append(_film_photo(job, job.footage, chunk) if job.footage else _film_script(job, chunk))
        except FootageError as error:
            found.append(LostVideo(job.id, *error.args))
    return found


def _film_script(job: Job, chunk: Chunk) -> MadeVideo:
    import numpy as np

    from dsol_core.orchestra import SAMPLE_RATE_HZ, compose_free, compose_solo
    from tasks.adapters import film, media
    from tasks.adapters.music_files import MadeVideo

    config, rng = chunk.config.orchestra, np.random.default_rng(job.entropy)
    script = compose_solo(job.category, config, rng) if job.category else compose_free(config, rng)
    with _unfinished(job, chunk.folder) as path:
        if path:
            frames = film.shoot(script, config.side, config.frames_per_second)
            media.encode(path, frames, film.play(script), config.frames_per_second, SAMPLE_RATE_HZ)
    boxes = tuple((second, script.boxes(second + 0.5)) for second in range(int(config.seconds)))
    return MadeVideo(job.id, job.kind, job.split, script.sounding, boxes)


def _film_photo(job: Job, footage: Footage, chunk: Chunk) -> MadeVideo:
    import numpy as np

    from tasks.adapters import film, images, media
    from tasks.adapters.music_files import MadeVideo

    try:
        photo = images.decode_image(footage.photo)
    except DataError as error:
        raise FootageError("photo cannot be read", str(error)) from error
    pan = film.slow_pan(photo.shape[0], photo.shape[1], np.random.default_rng(job.entropy))
    config = chunk.config.photos
    with _unfinished(job, chunk.folder) as path:
        if path:
            frames = film.pan_over(photo, pan, config.side, footage.seconds, config.frames_per_second)
            media.encode(path, frames, _listen(footage), config.frames_per_second, _SOUND_HZ)
    found = [(second, pan.box(footage.box, job.category, second + 0.5)) for second in range(int(footage.seconds))]
    boxes = tuple((second, (box,)) for second, box in found if box)
    return MadeVideo(job.id, job.kind, job.split, (str(job.category),), boxes)


def _listen(footage: Footage) -> Any:
    """Read the window of the recording, float32 [S]."""
    from tasks.adapters import media

    reason, first = "recording cannot be read", round(footage.start * _SOUND_HZ)
    try:
        whole = media.read_audio(footage.recording, _SOUND_HZ)
    except DataError as error:
        raise FootageError(reason, str(error)) from error
    sound = whole[first : first + round(footage.seconds * _SOUND_HZ)]
    if len(sound) < _SOUND_HZ:
        end = len(whole) / _SOUND_HZ
        raise FootageError(reason, f"{footage.recording.name} ends after {end:.1f} s; the manifest says later")
    return sound


@contextmanager
def _unfinished(job: Job, folder: Path) -> Iterator[Path | None]:
    """Give the path to write a video to, which gets its name when it is complete; None where it is there already."""
    finished, part = folder / f"{job.id}.mp4", folder / f"part-{job.id}.mp4"
    if finished.exists():
        yield None
    else:
        yield part
        part.rename(finished)


def _chunks(jobs: Sequence[Job], config: VideosConfig, folder: Path) -> Iterator[Chunk]:
    for first in range(0, len(jobs), _CHUNK):
        yield Chunk(tuple(jobs[first : first + _CHUNK]), config, folder)


def _video_id(entropy: tuple[int, ...]) -> str:
    """Return 11 characters of A-Z, a-z, 0-9, - and _, like the published ids."""
    digest = hashlib.blake2b(repr(entropy).encode(), digest_size=8).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _unique(jobs: list[Job], seed: int) -> list[Job]:
    if len({job.id for job in jobs}) < len(jobs):
        raise DataError(f"two of {len(jobs)} videos got the same id from the seed {seed}; choose another data.seed")
    return jobs
