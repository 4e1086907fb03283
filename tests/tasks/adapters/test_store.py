"""Fingerprints, atomic publication, damage, the user's own folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dsol_core.config import ClipsConfig
from dsol_core.types import UsageError
from tasks.adapters import fingerprints, user_folders
from tasks.adapters.fingerprints import fingerprint
from tasks.adapters.store import Artifact, Store, StoreError
from tasks.adapters.user_folders import external

ROOT = Path(__file__).resolve().parents[3]


def publish(store: Store, mark: str = "a" * 16, text: str = "x") -> Artifact:
    def write(folder: Path) -> dict[str, object]:
        (folder / "data.txt").write_text(text)
        return {"rows": {}}

    return store.publish("index_clips", mark, write)


def test_a_published_artifact_is_found_with_its_record(tmp_path: Path) -> None:
    built = publish(Store(tmp_path))
    found = Store(tmp_path).find("index_clips", "a" * 16)
    assert found is not None and found.state == "reused" and built.state == "ran"
    assert found.file("data.txt").read_text() == "x"
    assert found.record["files"]["data.txt"]["size"] == 1
    assert found.content == built.content


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no file 'other.txt'.*--force index_clips"):
        publish(Store(tmp_path)).file("other.txt")


@pytest.mark.parametrize("damage", ["delete", "shorten", "same size", "record"])
def test_damage_is_found_and_moved_aside(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    path = publish(store, text="abc").file("data.txt")
    if damage == "delete":
        path.unlink()
    elif damage == "record":
        (path.parent / "artifact.json").write_text('{"half')
    else:
        path.write_text("ab" if damage == "shorten" else "abd")
    assert store.find("index_clips", "a" * 16) is None
    assert list((tmp_path / "index_clips").glob(".damaged-*")), "what was computed is kept"


def test_touching_a_file_is_no_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    os.utime(publish(store).file("data.txt"), (1, 1))
    assert store.find("index_clips", "a" * 16) is not None


def test_publishing_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    publish(store, text="old")
    publish(store, text="new")
    found = store.find("index_clips", "a" * 16)
    assert found is not None and found.file("data.txt").read_text() == "new"
    publish(store, mark="b" * 16)
    kept = {p.name for p in (tmp_path / "index_clips").iterdir() if not p.name.startswith(".lock")}
    assert kept == {"a" * 16, "b" * 16}, "the replaced folder is swept by the next build"


def test_a_replacement_killed_half_way_is_undone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = publish(store, text="old").folder
    folder.rename(folder.with_name(f".old-{'a' * 16}-1"))
    publish(store, mark="b" * 16)  # sweeps what killed processes left
    found = store.find("index_clips", "a" * 16)
    assert found is not None and found.file("data.txt").read_text() == "old"


def test_equal_bytes_made_again_leave_the_old_files_in_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = publish(store).file("data.txt").stat().st_ino
    again = publish(store)
    assert again.state == "ran" and again.file("data.txt").stat().st_ino == before
    assert store.find("index_clips", "a" * 16) is not None


def test_what_another_process_builds_is_not_swept(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    with other.lock("index_clips", "c" * 16):
        (tmp_path / "index_clips" / f".new-{'c' * 16}-1").mkdir()
        publish(store)
        assert list((tmp_path / "index_clips").glob(".new-*"))
    publish(store, mark="d" * 16)
    assert not list((tmp_path / "index_clips").glob(".new-*"))


def test_a_failing_write_publishes_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, object]:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        Store(tmp_path).publish("index_clips", "b" * 16, fail)
    assert Store(tmp_path).find("index_clips", "b" * 16) is None


def test_a_killed_writer_leaves_nothing_that_is_trusted_and_is_swept_up(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tasks.adapters.store import Store\n"
        "def write(folder):\n"
        "    (folder / 'data.txt').write_text('half'); print('writing', flush=True); time.sleep(60); return {}\n"
        f"Store(Path({str(tmp_path)!r})).publish('index_clips', 'c' * 16, write)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().strip() == "writing"
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = Store(tmp_path)
    assert store.find("index_clips", "c" * 16) is None
    assert list((tmp_path / "index_clips").glob(".new-*"))
    publish(store)
    assert not list((tmp_path / "index_clips").glob(".new-*"))


def test_two_processes_do_not_build_the_same_thing(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tasks.adapters.store import Store\n"
        f"with Store(Path({str(tmp_path)!r})).lock('index_clips', 'd' * 16):\n"
        "    print('locked', flush=True); time.sleep(1.0)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().strip() == "locked"
    began = time.perf_counter()
    with Store(tmp_path).lock("index_clips", "d" * 16):
        waited = time.perf_counter() - began
    process.wait()
    assert waited > 0.5


def test_fingerprint_changes_with_each_ingredient_and_with_nothing_else(tmp_path: Path) -> None:
    parent = publish(Store(tmp_path))
    moved = Artifact("index_clips", Path("/elsewhere"), parent.fingerprint, "ran", parent.record)
    plain = fingerprint("mix_scenes", ClipsConfig(), {"clips": parent}, 0)
    assert plain == fingerprint("mix_scenes", ClipsConfig(), {"clips": moved}, 0), "a path is no ingredient"
    other = Artifact("index_clips", parent.folder, "e" * 16, "ran", parent.record)
    changed = Artifact("index_clips", parent.folder, parent.fingerprint, "ran", {"content": "0"})
    variants = [
        fingerprint("mix_scenes", ClipsConfig(duration=2.0), {"clips": parent}, 0),
        fingerprint("mix_scenes", ClipsConfig(), {"clips": other}, 0),
        fingerprint("mix_scenes", ClipsConfig(), {"clips": changed}, 0),
        fingerprint("mix_scenes", ClipsConfig(), {"clips": parent}, 1),
        fingerprint("evaluate", ClipsConfig(), {"clips": parent}, 0),
    ]
    assert len({plain, *variants}) == 6


def test_code_counts_through_lazy_imports_but_comments_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "dsol_core").mkdir()
    step, helper = tmp_path / "tasks" / "some_step.py", tmp_path / "dsol_core" / "maths.py"
    step.write_text('"""Doc."""\ndef work():\n    from dsol_core import maths\n    return maths.f()\n')
    helper.write_text("def f():\n    return 1\n")
    monkeypatch.setattr(fingerprints, "_ROOT", tmp_path)

    def digest() -> str:
        fingerprints.code_digest.cache_clear()
        fingerprints._read.cache_clear()
        return fingerprints.code_digest("tasks.some_step")

    before = digest()
    helper.write_text('def f():\n    """Now with a docstring."""\n    return 1  # and a comment\n')
    assert digest() == before
    helper.write_text("def f():\n    return 2\n")
    assert digest() != before
    fingerprints.code_digest.cache_clear()
    fingerprints._read.cache_clear()


def test_the_users_folder_is_known_by_content_not_by_place(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "deep").mkdir(parents=True)
        (tmp_path / place / "deep" / "ünï cödé.mp4").write_bytes(b"video")
        (tmp_path / place / ".hidden").write_bytes(place.encode())
    store = tmp_path / "store"
    one, two = (external(store, {"solo": tmp_path / place}) for place in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert one.files() == ["solo/deep/ünï cödé.mp4"]
    assert one.file("solo/deep/ünï cödé.mp4").read_bytes() == b"video"
    (tmp_path / "two" / "deep" / "ünï cödé.mp4").write_bytes(b"other")
    assert external(store, {"solo": tmp_path / "two"}).fingerprint != one.fingerprint


def test_outside_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"video")
    external(tmp_path / "store", {"": tmp_path / "in"})
    monkeypatch.setattr(user_folders, "sha256", lambda path: pytest.fail(f"{path} is hashed again"))
    external(tmp_path / "store", {"": tmp_path / "in"})
    assert json.loads((tmp_path / "store" / "checksums.json").read_text())


def test_folders_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        external(tmp_path, {"solo": tmp_path / "nowhere"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no files below"):
        external(tmp_path, {"": tmp_path / "empty"})


def test_odd_entries_of_a_users_folder_end_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"video")
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere")
    raw = os.fsencode(folder) + b"/\xff.mp4"
    Path(os.fsdecode(raw)).write_bytes(b"named in another encoding")
    found = external(tmp_path / "store", {"solo": folder})
    assert found.files() == ["solo/\\xff.mp4", "solo/a.mp4", "solo/gone.mp4"]
    assert found.file("solo/\\xff.mp4").read_bytes() == b"named in another encoding"


def test_a_folder_that_cannot_be_read_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.mp4", "locked/b.mp4"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "in" / name).write_bytes(b"video")
    usual = os.scandir

    def scandir(folder: str) -> Any:
        if str(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(folder))
        return usual(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match=r"the folder .*locked cannot be read \(Permission denied\)"):
        external(tmp_path / "store", {"": tmp_path / "in"})


def test_hidden_files_are_left_out_and_titles_with_an_ellipsis_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / ".cache").mkdir(parents=True)
    for name in ("...Baby.mp4", ".DS_Store", "._a.mp4", "a.mp4", ".cache/b.mp4"):
        (folder / name).write_bytes(b"video")
    assert external(tmp_path / "store", {"": folder}).files() == ["...Baby.mp4", "a.mp4"]


def test_links_that_lead_back_are_not_followed_and_others_are(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "cello").mkdir(parents=True)
    (data / "cello" / "a.mp4").write_bytes(b"a")
    for name in ("latest", "again"):
        (data / name).symlink_to(data)
    (data / "cello" / "up").symlink_to(data)
    (data / "viol").symlink_to(data / "cello")
    found = external(tmp_path / "store", {"": data}).files()
    assert found == ["cello/a.mp4", "viol/a.mp4"]


def test_a_store_inside_the_data_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    store = tmp_path / "runs"
    before = external(store, {"solo": tmp_path}).fingerprint
    publish(Store(store))
    assert external(store, {"solo": tmp_path}).fingerprint == before
    (tmp_path.parent / "linked").symlink_to(tmp_path)
    for folder, inside in ((tmp_path.parent / "linked", store), (tmp_path, tmp_path.parent / "linked" / "runs")):
        assert external(inside, {"solo": folder}).files() == ["solo/a.mp4"], "whatever way leads there"


def test_a_damaged_record_is_passed_over_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    good, bad = publish(store), publish(store, "b" * 16)
    (bad.folder / "artifact.json").write_text('{"step": ')
    store.write_summary("b.json", {"steps": []})
    (tmp_path / "runs" / "a.json").write_text("")
    assert [one.fingerprint for one in store.artifacts()] == [good.fingerprint]
    assert list(store.summaries()) == [{"steps": []}]
    assert len(caplog.messages) == 2 and "artifact.json is damaged" in caplog.text


def test_what_waits_for_another_try_or_a_look_is_listed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = publish(store)
    (made.folder / made.files()[0]).write_text("something else")
    assert store.find(made.step, made.fingerprint) is None
    (store.work("write_shards", "0" * 16) / "piece").touch()
    store.work("mix_scenes", "1" * 16)
    unfinished, damaged = store.leftovers()
    assert unfinished == ("write_shards", "unfinished", "0" * 16)
    assert damaged[:2] == (made.step, "damaged") and damaged[2].startswith(made.fingerprint)
