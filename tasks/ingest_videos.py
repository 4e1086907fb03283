"""Videos -> videos.parquet: what there is, what can be used, and why the rest cannot."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from dsol_core.config import VideosConfig
from dsol_core.types import SPLITS, DataError, Split
from tasks.adapters import fingerprints
from tasks.adapters.annotations import list_kind, list_split, plain_id, read_split_list, read_video_list
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact, StoreError

logger = logging.getLogger(__name__)

_CHUNK = 8  # files a task
_PREFERRED = ("test", "val", "train")  # where a video is in several lists, and which copy of a file is kept
# What lies beside videos without being one; everything else is opened.
_SIDECARS = set(".json .txt .csv .md .jpg .jpeg .png .webp .gif .srt .vtt .ass .nfo .part .parquet .pdf .html".split())
_CONTAINERS = set(".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .flv .ogv .wmv .3gp .vob .mxf".split())


@step
def ingest_videos(run: Run, media: Artifact, config: VideosConfig) -> Artifact:
    """Probe each video that is listed or found and write one row about it; a bad file is a row, never an end.

    Raises (when run):
        DataError: no video can be used, or a larger share than `config.max_quarantined` cannot.
    """

    def write(out: StepOutput) -> None:
        from tasks.adapters import tables

        rows = _found(media) if config.source == "folders" else _listed(media)
        if not rows:
            raise DataError(f"no videos in {media.folder}; {_expected(config)}")
        _probe(out, media, rows, config.verify)
        _name(rows)
        placed = _assign_splits(rows, config.split)
        _quarantine_copies(rows)
        _fill_empty_splits(placed, config.split)
        rows.sort(key=lambda row: (row["kind"] != "solo", row["id"], row["path"]))
        dropped = Counter(_short(row) for row in rows if row["status"] != "ok")
        _check_share(rows, dropped, config)
        tables.write(out.folder / "videos.parquet", "videos", rows)
        usable = len(rows) - dropped.total()
        out.rows(read=len(rows), written=usable, dropped=dict(sorted(dropped.items())))
        out.metrics({"hours": sum(row["duration"] for row in rows if row["status"] == "ok") / 3600})

    return run.step("ingest_videos", config, {"media": media}, write)


def _found(media: Artifact) -> list[dict[str, Any]]:
    """Rows of plain folders solo/ and multi/: any file names, no labels; splits come later from the content."""
    rows, ignored = [], 0
    for path in media.files():
        kind = path.split("/")[0]
        if kind not in ("solo", "multi") or PurePosixPath(path).name.startswith("."):
            continue
        if PurePosixPath(path).suffix.lower() in _SIDECARS:
            ignored += 1
            continue
        rows.append(_row(None, path, kind, None, ()))
    if ignored:
        logger.info("%d pictures, texts and other companions of videos left aside", ignored)
    return rows


def _listed(media: Artifact) -> list[dict[str, Any]]:
    """Rows of a data set like MUSIC: every video of its lists, found in any folder by its id."""
    names = media.files()
    labels = _labels(media, names)
    splits = _splits(media, names)
    if not labels and not splits:
        raise DataError(f"{media.folder} has no *_videos.json and no split lists; {_expected(None)}")
    paths = _paths(names, set(labels) | set(splits))
    split_kinds = {kind for kind, _ in splits.values()}
    rows = []
    for one in sorted(set(labels) | set(splits)):
        labelled, categories = labels.get(one, (None, ()))
        kind, split = splits.get(one, (labelled, "train" if labelled in split_kinds else None))
        rows.append(_row(one, paths.get(one), labelled or kind, split, categories))
    return rows


def _labels(media: Artifact, names: list[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Id -> kind and categories, from all lists."""
    labels: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name in names:
        if kind := list_kind(name):
            for one, categories in read_video_list(media.file(name), kind).items():
                if labels.setdefault(one, (kind, categories)) != (kind, categories):
                    logger.warning("%s is labelled %s, in %s also %s; kept", one, labels[one], name, categories)
    return labels


def _splits(media: Artifact, names: list[str]) -> dict[str, tuple[str, Split]]:
    """Id -> kind and split; where a kind has no test list its validation list is the test (as in DSOL's duets)."""
    lists = [(name, found) for name in names if (found := list_split(name))]
    tested = {kind for _, (kind, split) in lists if split == "test"}
    splits: dict[str, tuple[str, Split]] = {}
    for name, (kind, named) in lists:
        split: Split = "test" if named == "val" and kind not in tested else named
        for one in read_split_list(media.file(name)):
            known = splits.get(one)
            if known is None or _PREFERRED.index(split) < _PREFERRED.index(known[1]):
                splits[one] = (kind, split)
    return splits


def _paths(names: list[str], ids: set[str]) -> dict[str, str]:
    paths: dict[str, str] = {}
    for name in names:
        stem = PurePosixPath(name).stem
        one = stem if stem in ids else plain_id(stem)
        if one in ids and PurePosixPath(name).suffix.lower() in _CONTAINERS:
            paths.setdefault(one, name)
    return paths


def _row(one: str | None, path: str | None, kind: str | None, split: str | None, categories: tuple[str, ...]) -> Any:
    return {
        "id": one,
        "path": path or "",
        "sha256": "",
        "kind": kind,
        "split": split,
        "categories": list(categories),
        "duration": 0.0,
        "width": 0,
        "height": 0,
        "rotation": 0,
        "frames_per_second": 0.0,
        "variable_frame_rate": False,
        "sample_rate_hz": 0,
        "channels": 0,
        "codec_video": None,
        "codec_audio": None,
        "status": "ok" if path else "missing",
        "reason": None if path else "missing: listed, but no such file",
    }


def _probe(out: StepOutput, media: Artifact, rows: list[dict[str, Any]], verify: Literal["decode", "packets"]) -> None:
    """Fill in what the files say, in tasks over the cluster."""
    from tasks.adapters.cluster import map_tasks

    present, paths = [], []
    for row in rows:
        try:
            if row["path"]:
                paths.append(str(media.file(row["path"])))
                present.append(row)
        except StoreError:  # a link to nowhere, or a file that went away
            row.update(status="quarantined", reason="unreadable: no such file any more")
    starts = range(0, len(present), _CHUNK)
    chunks = [present[start : start + _CHUNK] for start in starts]
    items = ((verify, paths[start : start + _CHUNK]) for start in starts)
    done = 0
    for chunk, facts in zip(chunks, map_tasks(examine, items, compute=out.run.compute), strict=True):
        for row, fact in zip(chunk, facts, strict=True):
            row.update(fact)
        done += len(chunk)
        out.progress(done, len(present), "probing videos")


def examine(item: tuple[Literal["decode", "packets"], list[str]]) -> list[dict[str, Any]]:
    """Return the columns that each file fills itself: checksum, what it holds, whether it can be used."""
    verify, paths = item
    return [_facts(Path(path), verify) for path in paths]


def _facts(path: Path, verify: Literal["decode", "packets"]) -> dict[str, Any]:
    from tasks.adapters import media

    facts: dict[str, Any] = {}
    try:
        facts["sha256"] = fingerprints.sha256(path)
        info = media.probe(path, check=verify)
    except media.MediaError as error:
        return facts | {"status": "quarantined", "reason": error.reason}
    except OSError as error:
        return facts | {"status": "quarantined", "reason": f"unreadable: {error.strerror or error}"}
    columns = "duration width height rotation frames_per_second variable_frame_rate sample_rate_hz channels"
    facts |= {name: getattr(info, name) for name in [*columns.split(), "codec_video", "codec_audio"]}
    if info.problems:
        facts |= {"status": "quarantined", "reason": "; ".join(info.problems)}
    return facts


def _name(rows: list[dict[str, Any]]) -> None:
    """Give the videos of plain folders an id: what the file's name says in ASCII, and a digest of path and content."""
    for row in rows:
        if row["id"] is None or not re.fullmatch(r"[\w-]+", row["id"], re.ASCII):
            stem = row["id"] or PurePosixPath(row["path"]).stem
            letters = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
            slug = re.sub(r"[^A-Za-z0-9]+", "-", letters).strip("-")[:24] or "video"
            row["id"] = f"{slug}-{hashlib.sha256((row['path'] + row['sha256']).encode()).hexdigest()[:10]}"


def _assign_splits(rows: list[dict[str, Any]], shares: tuple[float, float, float]) -> list[dict[str, Any]]:
    """Split the videos that no list places by their content, so that copies stay together; return those videos."""
    placed = [row for row in rows if row["split"] is None]
    bounds = [sum(shares[: number + 1]) / sum(shares) for number in range(3)]
    for row in placed:
        row["split"] = SPLITS[next((n for n, bound in enumerate(bounds) if _place(row) < bound), 2)]
    return placed


def _fill_empty_splits(placed: list[dict[str, Any]], shares: tuple[float, float, float]) -> None:
    """Where a small folder leaves a split of a kind empty, move the video nearest to its range of digests there."""
    for kind in ("solo", "multi"):
        usable = [row for row in placed if row["kind"] == kind and row["status"] == "ok"]
        for number, split in enumerate(SPLITS):
            sizes = Counter(row["split"] for row in usable)
            if not usable or sizes[split] or not shares[number]:
                continue
            largest, size = sizes.most_common(1)[0]
            if size > 1:
                middle = (sum(shares[:number]) + shares[number] / 2) / sum(shares)
                candidates = (row for row in usable if row["split"] == largest)
                nearest = min(candidates, key=lambda row, middle=middle: abs(_place(row) - middle))  # type: ignore[misc]
                for row in placed:
                    if row["sha256"] == nearest["sha256"]:
                        row["split"] = split


def _place(row: dict[str, Any]) -> float:
    """A number in [0, 1) made of the content's digest; a file without one (missing, unreadable) of its id."""
    return int((row["sha256"] or hashlib.sha256(row["id"].encode()).hexdigest())[:12], 16) / 16**12


def _quarantine_copies(rows: list[dict[str, Any]]) -> None:
    """Keep one of several videos with the same content: a solo before a multi, a tested before a trained one."""
    kept: dict[str, str] = {}
    usable = (row for row in rows if row["status"] == "ok")
    for row in sorted(usable, key=lambda r: (_PREFERRED.index(r["split"]), r["kind"] != "solo", r["path"])):
        first = kept.setdefault(row["sha256"], row["path"])
        if first != row["path"]:
            row.update(status="quarantined", reason=f"duplicate: same content as {first}")


def _short(row: dict[str, Any]) -> str:
    return str(row["reason"]).split(":")[0].split(";")[0]


def _check_share(rows: list[dict[str, Any]], dropped: Counter[str], config: VideosConfig) -> None:
    present = [row for row in rows if row["status"] != "missing"]
    bad = [row for row in present if row["status"] != "ok"]
    reasons = ", ".join(f"{count} x {reason}" for reason, count in dropped.most_common(5))
    if len(bad) == len(present):
        raise DataError(f"none of {len(rows)} videos can be used: {reasons}; {_expected(config)}")
    if len(bad) > config.max_quarantined * len(present):
        raise DataError(
            f"{len(bad)} of {len(present)} videos cannot be used ({len(bad) / len(present):.0%}, allowed "
            f"{config.max_quarantined:.0%}): {reasons}, the first {bad[0]['path']}; mend or remove them, or raise "
            "data.videos.max_quarantined"
        )
    for row in bad:
        logger.info("%s left out: %s", row["path"], row["reason"])


def _expected(config: VideosConfig | None) -> str:
    if config and config.source == "folders":
        return "expected folders solo and multi (--solo DIR, --multi DIR) with video files that hold picture and sound"
    return "expected MUSIC_solo_videos.json and the like, split lists in splits/, and videos named by their ids"
