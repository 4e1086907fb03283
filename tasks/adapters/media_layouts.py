"""Folders of benchmark media as people really have them: from an annotation's name to a file and a time in it.

A folder is walked once. Understood, at any depth:

    <id>.mp4, Title [<id>].mkv             whole videos by their YouTube id; shorter than a clip: the clip itself
    <id>_<start>.mp4                       VGGSound's clips of 10 s; start in seconds
    <id>_<ms>_<ms>.mp4, <id>_30_40.mp4     the same in milliseconds (Align), or in seconds
    <id>_0_1000.mp4                        DSOL's whole videos
    <class>/<any of these>                 class folders
    frames/<name>.jpg + audio/<name>.wav   prepared frames and sounds (EZ-VSL, Flickr, AVGN, VGGSound-Instruments)
    <key>.jpg                              prepared frames under an item's key: <id>_0_1000/frame_012/00367.jpg
    audio/*.pkl, video/*.jpg, box/*.npy    MUSIC-Synthetic, whose sounds are pickled spectrograms

Sound alone is preferred to a video's, a prepared frame to a video's. Folders of masks and boxes hold no media.
"""

from __future__ import annotations

import filecmp
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from dsol_core.protocols import Picture, Sound
from dsol_core.types import UsageError
from tasks.adapters.user_folders import walk

Kind = Literal["picture", "sound", "video", "spectrogram"]
Cause = Literal["no file", "ambiguous", "spectrogram only", "too short", "start unknown", "cannot be decoded"]

CLIP = 10.0  # seconds of the clips of VGGSound and AudioSet
_ENDINGS: dict[Kind, str] = {
    "picture": ".jpg .jpeg .png .webp .bmp",
    "sound": ".wav .flac .mp3 .ogg .opus .m4a .aac .aiff .aif",
    "video": ".mp4 .mkv .webm .avi .mov .flv .mpg .mpeg .m4v .ts .wmv .3gp",
    "spectrogram": ".pkl .pickle .npy",
}
_KINDS: dict[str, Kind] = {ending: kind for kind, endings in _ENDINGS.items() for ending in endings.split()}
_NO_MEDIA = {"mask", "masks", "box", "boxes", "anno", "annotation", "annotations", "label", "labels", "gt"}
_TRAINING = {"train", "training", "train_data"}
_NUMBER = r"\d{1,8}(?:\.\d+)?"
_TITLE = re.compile(r".*\[(?P<id>[\w-]{11})\]")
_PART = re.compile(rf"(?P<id>[\w-]{{11}})(?:_(?P<start>{_NUMBER})(?:_(?P<end>{_NUMBER}))?)?")
_FRAME = re.compile(r"(?P<id>[\w-]{11})_\d{3}_(?P<frame>\d{5})")


@dataclass(frozen=True)
class Place:
    """A file and a time in it.

    Attributes:
        path: of the file.
        kind: of the file.
        second: in the file; None for a picture file, or for the middle of a whole recording.
        in_clip: second if the file turns out to be just the clip, although its name tells no start; None if it cannot.
        clip_only: the file must be the clip: where the annotation tells no start, a whole video is of no use.
    """

    path: Path
    kind: Kind
    second: float | None
    in_clip: float | None = None
    clip_only: bool = False


@dataclass(frozen=True)
class Missing:
    """A medium that cannot be used."""

    cause: Cause
    detail: str = ""


@dataclass(frozen=True)
class Span:
    """What a name says: a video and the part of it, in seconds; `end` None: to its end, `start` None: untold."""

    video: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class _File:
    path: str  # relative, with slashes
    kind: Kind
    span: Span | None


def span_of(stem: str) -> Span | None:
    """Return what a file name or an annotation's name without its ending tells, None if it names no YouTube video."""
    if titled := _TITLE.fullmatch(stem):
        return Span(titled["id"])
    if _FRAME.fullmatch(stem):
        return Span(stem[:11], 0.0)
    if not (found := _PART.fullmatch(stem)):
        return None
    video, start, end = found["id"], found["start"], found["end"]
    if start is None:
        return Span(video)
    if end is None:
        return Span(video, float(start), float(start) + CLIP)
    first, last = float(start), float(end)
    if (first, last) == (0, 1000):  # DSOL's whole videos
        return Span(video, 0.0)
    unit = 1000 if last - first >= 1000 and "." not in start + end else 1
    return Span(video, first / unit, last / unit)


class Library:
    """The media below a folder.

    Attributes:
        root: the folder.
        counts: files by kind.
    """

    def __init__(self, root: Path) -> None:
        """Walk the folder once; hidden files and folders of masks are left out.

        Raises:
            UsageError: it is no folder.
        """
        if not root.is_dir():
            raise UsageError(f"{root} (--data) is not a folder; expected the folder with the benchmark's media")
        self.root = root.absolute()
        self.counts: dict[Kind, int] = dict.fromkeys(_ENDINGS, 0)
        self._stems: dict[str, list[_File]] = defaultdict(list)
        self._videos: dict[str, list[_File]] = defaultdict(list)
        for path in _walk(self.root):
            self._add(path)

    def listing(self) -> list[tuple[str, int, int]]:
        """Return the path, size and time of change of every medium, sorted: another listing, other maps."""
        paths = sorted(file.path for files in self._stems.values() for file in files)
        stats = ((path, (self.root / path).stat()) for path in paths if (self.root / path).exists())
        return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]

    def _add(self, path: str) -> None:
        name = PurePosixPath(path)
        kind = _KINDS.get(name.suffix.lower())
        if kind is None:
            return
        self.counts[kind] += 1
        file = _File(path, kind, span_of(name.stem))
        self._stems[name.stem].append(file)
        if file.span and kind in ("video", "sound"):
            self._videos[file.span.video].append(file)

    def picture(self, picture: Picture, key: str | None = None, *, clips: bool = False) -> Place | Missing:
        """Find a frame.

        Args:
            picture: what the item asks for.
            key: of the item, if a prepared frame may bear it as its name.
            clips: names without a start are of 10-second clips, not of whole videos (AudioSet).
        """
        span = span_of(_stem(picture.name))
        prepared = picture.second is None or span is None or span.end is not None  # not a frame of a whole video
        names = [*([key] if key else []), *([picture.name] if prepared else [])]
        for name in names:
            found = self._choose([one for one in self._named(name) if one.kind == "picture"])
            if isinstance(found, Missing):
                return found
            if found:
                return Place(self.root / found.path, "picture", None)
        if picture.second is None:
            return Missing("no file")
        return self._moment(picture.name, span, picture.second, ("video",), clips)

    def sound(self, sound: Sound, *, clips: bool = False) -> Place | Missing:
        """Find what is heard, or where there is no sound its spectrogram; see `picture`."""
        span = span_of(_stem(sound.name))
        found = self._moment(sound.name, span, sound.middle, ("sound", "video"), clips)
        if isinstance(found, Missing) and found.cause == "no file":
            ready = self._choose([one for one in self._named(sound.name) if one.kind == "spectrogram"])
            if isinstance(ready, Missing):
                return ready
            return Place(self.root / ready.path, "spectrogram", None) if ready else found
        return found

    def _named(self, name: str) -> list[_File]:
        """Return the files whose path ends in a name, with any ending."""
        tail = _stem(name)
        known = self._stems.get(tail.rpartition("/")[2], [])
        if "/" not in tail:
            return known
        return [one for one in known if f"/{_stem(one.path)}".endswith(f"/{tail}")]

    def _moment(
        self, name: str, span: Span | None, second: float | None, kinds: tuple[Kind, ...], clips: bool
    ) -> Place | Missing:
        files = self._named(name) if span is None else self._videos.get(span.video, [])
        for fits in (_same_part, _whole, _covers):
            for kind in kinds:
                chosen = self._choose(
                    [one for one in files if one.kind == kind and fits(one.span, span, second, clips)]
                )
                if isinstance(chosen, Missing):
                    return chosen
                if chosen:
                    return self._place(chosen, span, second, clips)
        return Missing("no file")

    def _place(self, file: _File, span: Span | None, second: float | None, clips: bool) -> Place:
        path, start = self.root / file.path, (span.start if span else None) or 0.0
        if second is None or file.span is None or clips:
            return Place(path, file.kind, second, clip_only=clips and second is not None)
        if file.span.start is None:
            return Place(path, file.kind, start + second, in_clip=second if start else None)
        return Place(path, file.kind, start + second - file.span.start)

    def _choose(self, files: list[_File]) -> _File | Missing | None:
        """Return the one file, of several equal ones the first; training folders only where there is no other."""
        tests = [one for one in files if not _TRAINING & set(PurePosixPath(one.path.lower()).parts[:-1])]
        ordered = sorted(tests or files, key=lambda one: one.path)
        for one in ordered[1:]:
            if not filecmp.cmp(self.root / ordered[0].path, self.root / one.path, shallow=False):
                return Missing("ambiguous", f"{ordered[0].path} and {one.path}")
        return ordered[0] if ordered else None


def _same_part(file: Span | None, asked: Span | None, second: float | None, clips: bool) -> bool:
    """Whether a file is just the named part."""
    if file is None or asked is None:
        return file is asked
    if clips:
        return file.start is not None
    return file.start is not None and file.start == asked.start and (file.end is None) == (asked.end is None)


def _whole(file: Span | None, asked: Span | None, second: float | None, clips: bool) -> bool:
    return file is not None and (file.start is None or (file.start == 0 and file.end is None))


def _covers(file: Span | None, asked: Span | None, second: float | None, clips: bool) -> bool:
    """Whether another part of the video holds the second."""
    if clips or second is None or file is None or asked is None or file.start is None:
        return False
    moment = (asked.start or 0.0) + second
    return file.start <= moment <= (file.start + CLIP if file.end is None else file.end)


def _stem(name: str) -> str:
    """Return a name or relative path without a medium's ending."""
    head, dot, ending = name.rpartition(".")
    return head if dot and f".{ending.lower()}" in _KINDS else name


def _walk(root: Path) -> list[str]:
    found = []
    for folder, names, files in walk(root):
        names[:] = sorted(name for name in names if not name.startswith(".") and name.lower() not in _NO_MEDIA)
        inside = Path(folder).relative_to(root)
        found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)
