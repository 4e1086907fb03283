from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsol_core.config import VideosConfig
from dsol_core.types import DataError
from tasks.adapters import fingerprints, tables
from tasks.adapters.steps import Run
from tasks.adapters.store import Artifact
from tasks.adapters.user_folders import external
from tasks.ingest_videos import ingest_videos

FOLDERS = VideosConfig(source="folders", max_quarantined=0.9, verify="decode")
LISTS = VideosConfig(source="lists", max_quarantined=0.5)


def ingest(tmp_path: Path, config: VideosConfig, **roots: Path) -> Artifact:
    media = external(tmp_path / "store", {prefix.removeprefix("_"): root for prefix, root in roots.items()})
    return ingest_videos.fn(Run.local(tmp_path / "store"), media, config)


def rows(artifact: Artifact) -> list[dict[str, Any]]:
    return list(tables.read(artifact.file("videos.parquet")))


def by_path(artifact: Artifact) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in rows(artifact)}


def write_lists(folder: Path, solo: dict[str, list[str]], duet: dict[str, list[str]], **splits: list[str]) -> None:
    (folder / "splits").mkdir(parents=True)
    for name, videos in (("solo", solo), ("duet", duet)):
        (folder / f"MUSIC_{name}_videos.json").write_text(json.dumps({"version": 1.0, "videos": videos}))
    for name, ids in splits.items():
        lines = [f"{one}_0_1000.flac {one}_0_1000.mp4" for one in ids]
        (folder / "splits" / f"{name}.txt").write_text("\r\n".join(lines) + "\r\n")


def copies(film: Callable[..., Path], folder: Path, count: int, **options: Any) -> list[Path]:
    """Short videos that differ."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        source = film(f"short-{number}.mp4", seconds=1, sound=f"sine={300 + number}:d={{seconds}}:r=16000", **options)
        made.append(Path(shutil.copy(source, folder / f"video {number}.mp4")))
    return made


def test_every_odd_file_is_used_or_set_aside_with_a_reason(odd_files: dict[str, Path], tmp_path: Path) -> None:
    solo = tmp_path / "data"
    solo.mkdir()
    for name, path in odd_files.items():
        shutil.copy(path, solo / name)
    (solo / "notes.txt").write_text("not a video and not meant as one")
    found = ingest(tmp_path, FOLDERS, solo=solo)
    table = by_path(found)
    reasons = {
        "zero-byte.mp4": "empty file",
        "empty.mp4": "neither picture nor sound",
        "no-index.mp4": "no index",
        "cut.mp4": "truncated",
        "text.mp4": "no index",
        "playlist.mp4": "a format or protocol",
        "noise.mp4": "no index",
        "damaged.mp4": "damaged",
        "audio-less.mp4": "no sound stream",
        "video-less.mp4": "no picture stream",
        "late-sound.mp4": "late stream",
    }
    status = {path.removeprefix("solo/"): row["status"] for path, row in table.items()}
    assert status == {name: "quarantined" if name in reasons else "ok" for name in odd_files}
    for name, words in reasons.items():
        row = table[f"solo/{name}"]
        assert words in row["reason"], name
    uneven, hour = table["solo/uneven.mp4"], table["solo/hour.mp4"]
    assert uneven["variable_frame_rate"] and not hour["variable_frame_rate"]
    assert hour["duration"] == pytest.approx(3600, rel=0.005)
    assert table["solo/surround.mp4"]["channels"] == 6 and table["solo/telephone.mp4"]["sample_rate_hz"] == 8000
    turned = table["solo/rotated.mp4"]
    assert (turned["width"], turned["height"], turned["rotation"]) == (96, 128, 270)
    counts = found.record["rows"]
    assert counts["read"] == len(odd_files) == counts["written"] + sum(counts["dropped"].values())
    assert counts["dropped"]["truncated"] == 1 and counts["dropped"]["no sound stream"] == 1


def test_too_many_bad_files_stop_with_the_commonest_reasons(film: Callable[..., Path], tmp_path: Path) -> None:
    solo = tmp_path / "data"
    copies(film, solo, 1)
    for number in range(3):
        (solo / f"{number}.mp4").write_bytes(b"")
    config = VideosConfig(source="folders", max_quarantined=0.7)
    with pytest.raises(DataError, match=r"3 of 4 videos cannot be used \(75%, allowed 70%\): 3 x empty file") as caught:
        ingest(tmp_path, config, solo=solo)
    assert "data.videos.max_quarantined" in str(caught.value)
    assert len(rows(ingest(tmp_path, VideosConfig(source="folders", max_quarantined=0.75), solo=solo))) == 4


def test_no_usable_video_at_all_is_an_error_that_says_why(tmp_path: Path) -> None:
    solo = tmp_path / "data"
    solo.mkdir()
    (solo / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 videos can be used: 1 x empty file"):
        ingest(tmp_path, VideosConfig(source="folders", max_quarantined=1.0), solo=solo)
    (solo / "a.mp4").rename(solo / "a.txt")
    with pytest.raises(DataError, match="no videos"):
        ingest(tmp_path, FOLDERS, solo=solo)


def test_plain_folders_are_split_by_content_and_copies_are_set_aside(film: Callable[..., Path], tmp_path: Path) -> None:
    solo, multi = tmp_path / "einzeln", tmp_path / "zusammen"
    first = copies(film, solo, 12)
    (solo / "tiefer" / "ñandú – 音").mkdir(parents=True)
    for path in first[:4]:
        shutil.copy(path, solo / "tiefer" / "ñandú – 音" / f"{path.stem} Kopie: 2.mp4")
    multi.mkdir()
    shutil.copy(first[0], multi / "the same.mp4")
    copies(film, multi, 3, rate="10")
    table = rows(ingest(tmp_path, FOLDERS, solo=solo, multi=multi))
    assert Counter(row["status"] for row in table) == {"ok": 15, "quarantined": 5}
    for row in table:
        assert row["categories"] == [] and row["kind"] == row["path"].split("/")[0]
        if row["status"] == "quarantined":
            assert row["reason"].startswith("duplicate: same content as ")
    by_content = {
        row["sha256"]: {other["split"] for other in table if other["sha256"] == row["sha256"]} for row in table
    }
    copied = [fingerprints.sha256(path) for path in first[1:4]]
    assert all(len(by_content[digest]) == 1 for digest in copied)
    ids = [row["id"] for row in table]
    assert len(set(ids)) == len(ids) and all(set(one) <= set(f"{LETTERS}-_") for one in ids)
    used = Counter((row["kind"], row["split"]) for row in table if row["status"] == "ok")
    assert all(used[kind, split] >= 1 for kind in ("solo", "multi") for split in ("train", "val", "test"))
    assert used["solo", "train"] >= 6


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def test_a_new_video_moves_no_other_to_another_split(film: Callable[..., Path], tmp_path: Path) -> None:
    solo = tmp_path / "data"
    made = copies(film, solo, 12)
    made[-1].rename(tmp_path / "later.mp4")
    before = {row["sha256"]: row["split"] for row in rows(ingest(tmp_path, FOLDERS, solo=solo))}
    (tmp_path / "later.mp4").rename(solo / "later.mp4")
    after = {row["sha256"]: row["split"] for row in rows(ingest(tmp_path, FOLDERS, solo=solo))}
    assert len(after) == 12
    assert sum(after[digest] != split for digest, split in before.items()) <= 1  # one only where a split was empty


def test_lists_name_kind_split_and_categories_and_what_is_missing(film: Callable[..., Path], tmp_path: Path) -> None:
    data = tmp_path / "MUSIC"
    ids = ["aaaaaaaaaaa", "bbbb_bb-bbb", "ccccccccccc", "ddddddddddd", "eeeeeeeeeee", "gone_gone__"]
    write_lists(
        data,
        {"cello": ids[:2], "flute": [ids[2], ids[5]]},
        {"cello flute": [ids[3]], "acoustic_guitar violin": [ids[4]]},
        solo_training_1=[ids[0], ids[5]],
        solo_validation=[ids[1], ids[2]],
        solo_testing=[ids[2]],
        solo_pairs=ids[:3],
        duet_pairs_train=[ids[3]],
        duet_pairs_val=[ids[4]],
    )
    sources = copies(film, tmp_path / "made", 6)
    places = [
        "a/b/aaaaaaaaaaa_0_1000.mp4",
        "bbbb_bb-bbb.mp4",
        "ccccccccccc.mp4",
        "duet/ddddddddddd.mp4",
        "eeeeeeeeeee.mkv",
    ]
    for source, place in zip(sources, [*places, "never listed.mp4"], strict=True):
        (data / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, data / place)
    found = ingest(tmp_path, LISTS, _=data)
    table = {row["id"]: row for row in rows(found)}
    assert {one: (row["kind"], row["split"], row["categories"], row["status"]) for one, row in table.items()} == {
        ids[0]: ("solo", "train", ["cello"], "ok"),
        ids[1]: ("solo", "val", ["cello"], "ok"),
        ids[2]: ("solo", "test", ["flute"], "ok"),
        ids[3]: ("multi", "train", ["cello", "flute"], "ok"),
        ids[4]: ("multi", "test", ["acoustic_guitar", "violin"], "ok"),
        ids[5]: ("solo", "train", ["flute"], "missing"),
    }
    assert [table[one]["path"] for one in ids[:5]] == places
    assert found.record["rows"] == {"read": 6, "written": 5, "dropped": {"missing": 1}}


def test_missing_videos_alone_never_stop_but_all_missing_do(film: Callable[..., Path], tmp_path: Path) -> None:
    data = tmp_path / "MUSIC"
    write_lists(data, {"cello": [f"{n:011d}" for n in range(10)]}, {})
    with pytest.raises(DataError, match="none of 10 videos can be used: 10 x missing"):
        ingest(tmp_path, LISTS, _=data)
    shutil.copy(copies(film, tmp_path / "made", 1)[0], data / f"{3:011d}.mp4")
    table = rows(ingest(tmp_path, LISTS, _=data))
    assert Counter(row["status"] for row in table) == {"missing": 9, "ok": 1}


def test_a_copy_under_another_id_is_kept_in_the_test_split_only(film: Callable[..., Path], tmp_path: Path) -> None:
    data = tmp_path / "MUSIC"
    write_lists(
        data, {"cello": ["aaaaaaaaaaa", "zzzzzzzzzzz"]}, {}, solo_train=["aaaaaaaaaaa"], solo_test=["zzzzzzzzzzz"]
    )
    (source,) = copies(film, tmp_path / "made", 1)
    for one in ("aaaaaaaaaaa", "zzzzzzzzzzz"):
        shutil.copy(source, data / f"{one}.mp4")
    table = {row["id"]: row["status"] for row in rows(ingest(tmp_path, LISTS, _=data))}
    assert table == {"aaaaaaaaaaa": "quarantined", "zzzzzzzzzzz": "ok"}


def test_a_folder_without_lists_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no \*_videos\.json and no split lists; expected MUSIC_solo_videos\.json"):
        ingest(tmp_path, LISTS, _=tmp_path / "data")


def test_the_published_lists_give_the_published_splits(shared_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "MUSIC"
    (data / "splits").mkdir(parents=True)
    music = shared_dir / "annotations/music"
    for path in [music / "MUSIC_solo_videos.json", music / "MUSIC_duet_videos.json"]:
        shutil.copyfile(path, data / path.name)
    for path in (music / "dsol_splits").glob("*.txt"):
        shutil.copyfile(path, data / "splits" / path.name)
    real = shared_dir / "data/real-av/videos/014.mp4"
    shutil.copyfile(real, data / "8DHG_hVSw1o_0_1000.mp4")
    table = rows(ingest(tmp_path, LISTS, _=data))
    counts = Counter((row["kind"], row["split"]) for row in table)
    assert len(table) == 536 + 149
    assert (counts["solo", "test"], counts["solo", "val"]) == (27, 49 - 27)
    assert counts["multi", "test"] == 17
    (used,) = (row for row in table if row["status"] == "ok")
    assert (used["id"], used["kind"], used["split"]) == ("8DHG_hVSw1o", "multi", "test") and len(
        used["categories"]
    ) == 2


def test_unreadable_files_are_rows_too(
    film: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import ingest_videos as module

    solo = tmp_path / "data"
    copies(film, solo, 2)

    def refuse(path: Path) -> str:
        if path.name == "video 1.mp4":
            raise PermissionError(13, "Permission denied")
        return "digest"

    media = external(tmp_path / "store", {"solo": solo})
    monkeypatch.setattr(module.fingerprints, "sha256", refuse)
    facts = module.examine(("packets", [str(media.file(name)) for name in media.files()]))
    assert [fact.get("reason") for fact in facts] == [None, "unreadable: Permission denied"]


def test_links_to_nowhere_are_rows_too(film: Callable[..., Path], tmp_path: Path) -> None:
    copies(film, tmp_path / "data", 3)
    (tmp_path / "data" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    table = rows(ingest(tmp_path, FOLDERS, solo=tmp_path / "data"))
    (gone,) = (row for row in table if row["status"] != "ok")
    assert len(table) == 4 and gone["path"] == "solo/gone.mp4"
    assert (gone["status"], gone["reason"]) == ("quarantined", "unreadable: no such file any more")


def test_equal_folders_give_equal_tables_and_a_second_run_does_nothing(
    film: Callable[..., Path], tmp_path: Path
) -> None:
    solo = tmp_path / "data"
    copies(film, solo, 3)
    first = ingest(tmp_path, FOLDERS, solo=solo)
    again = ingest(tmp_path, FOLDERS, solo=solo)
    assert (first.state, again.state) == ("ran", "reused")
    other = ingest(tmp_path / "elsewhere", FOLDERS, solo=solo)
    assert other.file("videos.parquet").read_bytes() == first.file("videos.parquet").read_bytes()


@pytest.mark.cluster
def test_probing_on_ray_gives_the_same_rows(film: Callable[..., Path], tmp_path: Path) -> None:
    from dsol_core.config import Compute
    from tasks.adapters import cluster

    solo = tmp_path / "data"
    copies(film, solo, 12)
    here = ingest(tmp_path, FOLDERS, solo=solo)
    media = external(tmp_path / "other", {"solo": solo})
    try:
        there = ingest_videos.fn(Run(tmp_path / "other", compute=Compute(workers=1)), media, FOLDERS)
    finally:
        cluster.stop()
    assert rows(there) == rows(here)
