"""WebDataset shards: writing with equal bytes for equal input, reading in a repeatable order. Owner of webdataset.

A shard is a tar of samples; the members of a sample share its key. Two contents exist:

    "frames"    <key>.frame0.jpg ... or <key>.part0.jpg ... part3.jpg, <key>.audio.npy int16 [S'], <key>.meta.json
    "features"  <key>.views.npy float16 [V, C, h, w], <key>.mels.npy float16 [A, T, M], <key>.meta.json

`shards.json` beside them lists every shard with its number of samples. Each sample's meta holds a checksum over its
members, so that damage costs only the samples that it hits, the same ones on every worker, and is counted. Pictures,
arrays and JSON are decoded, nothing else: a pickle inside a shard is never looked at. Who only writes shards, such as
the tasks that decode videos, imports neither torch nor webdataset (seconds a process).
"""

from __future__ import annotations

import io
import json
import logging
import os
import random
import re
import tarfile
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np

from dsol_core import clip_windows
from dsol_core.config import RATE_HZ
from dsol_core.types import DataError
from tasks.adapters import images

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

MANIFEST = "shards.json"
MAX_DAMAGED = 0.05  # share of damaged samples above which reading stops, unless the caller says otherwise
Content = Literal["frames", "features"]
_MEMBERS = ("jpg", "npy", "json")
_CRC32 = re.compile(rb'"crc32":\d+,')  # in written meta; the key's name comes after it
_OCTAL = re.compile(rb"[0-7]+")


@dataclass(frozen=True)
class Shard:
    """One line of the manifest: a tar file, what it belongs to, how many samples it holds."""

    path: str
    subset: str
    split: str
    samples: int
    sha256: str


@dataclass(frozen=True)
class Sample:
    """One sample as it lies in a shard: undecoded members by suffix ("frame0.jpg"), decoded meta."""

    key: str
    meta: Mapping[str, Any]
    members: Mapping[str, bytes]

    @property
    def video(self) -> str:
        """Its video, or its videos joined by "+"."""
        return "+".join(self.meta["video_ids"])


def write_shard(path: Path, samples: Iterable[Sample]) -> int:
    """Write a shard, complete or not at all, and return its number of samples.

    Raises:
        DataError: a key that would not survive in a shard.
    """
    count = 0
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file, tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for sample in samples:
            if not sample.key or "." in sample.key or "/" in sample.key:
                raise DataError(f"sample key {sample.key!r} is empty or holds a dot or slash; choose another video id")
            meta = {name: part for name, part in sample.meta.items() if name != "crc32"} | {"key": sample.key}
            meta["crc32"] = _checksum(sample.members, json_bytes(meta))
            for name, data in sorted({**sample.members, "meta.json": json_bytes(meta)}.items()):
                _add(tar, f"{sample.key}.{name}", data)
            count += 1
    temporary.replace(path)
    return count


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member as webdataset's TarWriter does, with time 0."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uname, info.gname = len(data), 0o444, "bigdata", "bigdata"
    tar.addfile(info, io.BytesIO(data))


def _checksum(members: Mapping[str, bytes], meta: bytes) -> int:
    """Return the checksum of a sample whose meta, without a checksum, is written like this."""
    value = zlib.crc32(meta)
    for name in sorted(members):
        value = zlib.crc32(members[name], zlib.crc32(name.encode(), value))
    return value


def array_bytes(array: np.ndarray) -> bytes:
    """Return an array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def json_bytes(value: Any) -> bytes:
    """Return JSON whose bytes depend on the value only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def array(sample: Sample, name: str) -> np.ndarray:
    """Decode one array of a sample, such as "audio.npy"; it cannot be written to.

    Raises:
        DataError: it is no array, or one of objects.
    """
    try:
        data = sample.members[name]
        start = 10 + int.from_bytes(data[8:10], "little")
        shape, kind = _npy_layout(data[:start])
        return np.frombuffer(data, kind, offset=start).reshape(shape)
    except (KeyError, ValueError) as error:
        raise DataError(
            f"sample {sample.key}: {name} is no array ({error}); run the step that wrote the shard again"
        ) from error


@lru_cache(maxsize=64)
def _npy_layout(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and type that the head of a .npy file (of version 1, in C order, as we write it) names."""
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"its head is {header[:8]!r}")
    shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
    if fortran or kind.hasobject:
        raise ValueError(f"it holds {kind} in {'Fortran' if fortran else 'C'} order")
    return shape, kind


def picture(sample: Sample, index: int | None = None) -> torch.Tensor:
    """Decode one frame of a sample, uint8 [3, H, W]; the parts of a grid come tiled.

    Args:
        sample: of "frames" shards.
        index: which of its frames; None: the middle one, the frame of evaluation.

    Raises:
        DataError: a picture cannot be decoded.
    """
    import torch

    from dsol_core import image

    names = pictures(sample)
    try:
        if names[0].startswith("part"):
            return image.grid(torch.stack([images.decode_jpeg(sample.members[name]) for name in names])[None])[0]
        name = names[len(names) // 2 if index is None else index]
        return images.decode_jpeg(sample.members[name])
    except (DataError, RuntimeError) as error:
        raise DataError(f"sample {sample.key}: {error}") from error


def pictures(sample: Sample) -> list[str]:
    """Return the names of a sample's pictures, in order."""
    return sorted((name for name in sample.members if name.endswith(".jpg")), key=lambda name: (len(name), name))


def windows(sample: Sample) -> list[np.ndarray]:
    """Decode the seconds that a sample may listen to, each int16 [S] of a clip's length: its own and its neighbours.

    The neighbours (`clip_windows.starts`) are there where the video has them and the shards' context holds them.
    """
    sound = array(sample, "audio.npy")
    size, own = round(float(sample.meta["duration"]) * RATE_HZ), int(sample.meta["offset"])
    starts = clip_windows.starts(len(sound), own, size)
    if not starts:
        raise DataError(
            f"sample {sample.key}: {len(sound)} values of sound, expected {size} from {own} on; write again"
        )
    return [sound[start : start + size] for start in starts]


def waveform(window: np.ndarray) -> np.ndarray:
    """Turn int16 sound into float32 in [-1, 1], the same shape."""
    return window.astype(np.float32) / 32768


def write_manifest(folder: Path, shards: Sequence[Shard], content: Content) -> None:
    """Write `shards.json`."""
    (folder / MANIFEST).write_text(json.dumps({"content": content, "shards": [asdict(s) for s in shards]}, indent=1))


def read_manifest(folder: Path) -> tuple[Content, list[Shard]]:
    """Read `shards.json`: what the shards hold, and the shards.

    Raises:
        DataError: it is missing or not what `write_manifest` makes.
    """
    path = folder / MANIFEST
    try:
        value = json.loads(path.read_text())
        shards = [Shard(**one) for one in value["shards"]]
        content: Content = value["content"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a list of shards ({error}); run write_shards again") from error
    outside = [one.path for one in shards if Path(one.path).name != one.path]
    if outside:
        raise DataError(f"{path} names {outside[0]!r}; expected names of files in the same folder")
    return content, shards


def _webdataset() -> Any:
    """Import webdataset, which reads once, when it is imported, that it may open no pickles and no shell commands."""
    os.environ["WDS_SECURE"] = "1"
    import webdataset

    return webdataset


def read_shard(path: Path) -> Iterator[Sample]:
    """Yield the whole samples of a shard in order; damaged and unfinished ones are left out.

    A tar that ends too early gives the samples before its end, a missing file none: compare with the manifest.
    """
    tariterators = _webdataset().tariterators
    try:
        file = path.open("rb")
    except OSError as error:
        logger.warning("shard %s cannot be opened: %s", path, error)
        return
    with file:
        for raw in tariterators.group_by_keys(_members(file, path), handler=_warn):
            sample = _check(raw)
            if sample is not None:
                yield sample


class _Entry(NamedTuple):
    """Where a member of a tar lies: its name, where its bytes begin, and how many they are."""

    name: str
    offset: int
    size: int


def _entries(file: BinaryIO) -> Iterator[_Entry]:
    """Yield where the members of a tar lie that are pictures, arrays or JSON; the last may reach over its end.

    `tarfile` takes five times as long. A block that is no sound header is passed over, so that after damage reading
    goes on with the next member.
    """
    long_name = None
    while len(header := file.read(512)) == 512:
        if not _is_header(header):
            long_name = None  # of a member whose header is damaged, not of the next one
            continue
        size, kind = int(header[124:135], 8), header[156:157]
        name, long_name = long_name or header[:100].rstrip(b"\0").decode(errors="replace"), None
        offset = file.tell()
        if kind == b"x":  # the PAX header before a member whose name is long or not ASCII
            long_name = _pax_name(file.read(size))
        elif kind in b"0\0" and _known(name):
            yield _Entry(name, offset, size)
        file.seek(offset + size + -size % 512)


def _members(file: BinaryIO, path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole members of a tar as webdataset groups them into samples."""
    for name, _, size in _entries(file):
        data = file.read(size)
        if len(data) == size:
            yield {"fname": name, "data": data, "__url__": str(path)}


def _is_header(block: bytes) -> bool:
    """Say whether a block has a size and its own checksum, both in octal digits; data may hold any digits there."""
    size, stored = block[124:135], block[148:154]
    if not _OCTAL.fullmatch(size + stored):
        return False
    return int(stored, 8) == sum(block) - sum(block[148:156]) + 8 * 32


def _pax_name(records: bytes) -> str | None:
    found = re.search(rb"^\d+ path=(.*)$", records, re.MULTILINE)
    return found[1].decode(errors="replace") if found else None


def _known(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in _MEMBERS


def _warn(error: Exception) -> bool:
    logger.warning("damage in a shard, its samples are counted: %s", error)
    return True


def _check(raw: Mapping[str, Any]) -> Sample | None:
    members = {name: value for name, value in raw.items() if not name.startswith("__") and name != "meta.json"}
    try:
        written = raw["meta.json"]
        meta = json.loads(written)
        whole = meta["key"] == raw["__key__"] and meta["crc32"] == _checksum(members, _CRC32.sub(b"", written, 1))
    except (KeyError, ValueError, TypeError) as error:
        logger.warning("sample %s in %s has no sound meta.json: %s", raw["__key__"], raw["__url__"], error)
        return None
    return Sample(meta["key"], meta, members) if whole else None


class ShardReader:
    """The samples of some subsets of one split.

    Attributes:
        content: "frames" or "features".
        shards: what the manifest lists for them.
        expected: number of samples that the manifest promises.
        lost: by shard, how many of them the last pass over it did not find whole.
    """

    def __init__(
        self, folder: Path, subsets: Iterable[str] | None, split: str | None, *, max_damaged: float = MAX_DAMAGED
    ) -> None:
        """Open a folder of shards.

        Args:
            folder: with `shards.json`.
            subsets: such as ("grid", "multi"); None: all.
            split: None: all.
            max_damaged: share of damaged samples above which reading stops.
        """
        wanted = None if subsets is None else set(subsets)
        self.folder, self.max_damaged = folder, max_damaged
        self.content, listed = read_manifest(folder)
        self.shards = [s for s in listed if (wanted is None or s.subset in wanted) and split in (None, s.split)]
        self.expected = sum(shard.samples for shard in self.shards)
        self.lost: dict[str, int] = {}

    @property
    def damaged(self) -> int:
        """Number of samples lost to damage so far."""
        return sum(self.lost.values())

    @property
    def sample_bytes(self) -> float:
        """Mean size of a sample in those shards that are there."""
        there = [(one, path) for one in self.shards if (path := self.folder / one.path).is_file()]
        return sum(path.stat().st_size for _, path in there) / max(1, sum(one.samples for one, _ in there))

    def ordered(self) -> Iterator[Sample]:
        """Yield every sample in the order of the manifest."""
        return self._read(self.shards)

    def shuffled(self, seed: int, buffer: int) -> Iterator[Sample]:
        """Yield every sample once in an order that depends on the seed alone.

        Args:
            seed: any integer.
            buffer: number of (undecoded) samples held to mix; the shards' order is mixed too.
        """
        shards = list(self.shards)
        random.Random(seed).shuffle(shards)
        shuffle = _webdataset().detshuffle(bufsize=buffer, initial=buffer, seed=seed)
        mixed: Iterator[Sample] = shuffle.run(self._read(shards))
        return mixed

    def _read(self, shards: Iterable[Shard]) -> Iterator[Sample]:
        for shard in shards:
            yield from self.of(shard)

    def of(self, shard: Shard) -> Iterator[Sample]:
        """Yield the whole samples of one shard in order and count the others."""
        found = 0
        for sample in read_shard(self.folder / shard.path):
            found += 1
            yield sample
        self._count(shard, shard.samples - found)

    def _count(self, shard: Shard, lost: int) -> None:
        if lost == 0:
            self.lost.pop(shard.path, None)
            return
        self.lost[shard.path] = lost
        logger.warning("shard %s: %d of %d samples are damaged or missing", shard.path, lost, shard.samples)
        if self.damaged > self.max_damaged * self.expected:
            raise DataError(
                f"{self.damaged} of {self.expected} samples in {self.folder} are damaged (last: {shard.path}), more "
                f"than the share of {self.max_damaged:g}; run --force write_shards"
            )


def samples(
    folder: Path, *, subset: str, split: str, keys: Container[str] | None = None, max_damaged: float = MAX_DAMAGED
) -> Iterator[dict[str, Any]]:
    """Yield decoded samples of "frames" shards in order, for evaluation and reports.

    Yields:
        {"key", "frame": uint8 [H, W, 3] (of a grid: composed), "waveform": float32 [S] in [-1, 1], "meta"}.
    """
    for sample in ShardReader(folder, (subset,), split, max_damaged=max_damaged).ordered():
        if keys is None or sample.key in keys:
            frame = picture(sample).permute(1, 2, 0).contiguous().numpy()
            yield {
                "key": sample.key,
                "frame": frame,
                "waveform": waveform(windows(sample)[0]),
                "meta": dict(sample.meta),
            }


def places(path: Path, keys: Container[str]) -> dict[str, dict[str, tuple[int, int]]]:
    """Return where the members of some samples of a shard lie: key -> name -> (offset, size) in bytes.

    Of a damaged shard those that `read_shard` finds whole, of a missing one none.
    """
    found: dict[str, dict[str, tuple[int, int]]] = {}
    if not path.is_file():
        return found
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        for entry in _entries(file):
            key, _, name = entry.name.partition(".")
            if key in keys and entry.offset + entry.size <= end:
                found.setdefault(key, {})[name] = (entry.offset, entry.size)
    return found


def read_at(path: Path, key: str, place: Mapping[str, Sequence[int]]) -> Sample:
    """Read one sample from where `places` found it, without a check of its bytes.

    Raises:
        DataError: there is no such sample at that place.
    """
    with path.open("rb") as file:
        members = {}
        for name, (offset, size) in place.items():
            file.seek(offset)
            members[name] = file.read(size)
    try:
        meta = json.loads(members.pop("meta.json"))
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} holds no sample {key} at its place ({error}); run --force write_shards") from error
    return Sample(key, meta, members)
