"""A store of objects against a real S3-protocol server: publication, laziness, damage, kills, two machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsol_core.types import UsageError
from tasks.adapters import object_store, transport
from tasks.adapters import store as store_module
from tasks.adapters.object_store import ObjectStore, local_model, open_store
from tasks.adapters.objects import Objects, ObjectsError
from tasks.adapters.steps import Run, StepOutput, StepRefusedError
from tasks.adapters.store import Artifact, Store, StoreError
from tests.object_server import BUCKET, object_server

pytestmark = [pytest.mark.server]
ROOT = Path(__file__).resolve().parents[3]
MARK = "a" * 16


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with object_server() as environment:
        yield environment


@pytest.fixture
def uri(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_store, "mounted", mounted := [])
    monkeypatch.setattr(transport, "mounted", mounted)
    object_store._opened.cache_clear()
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def machine(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a function that gives the store as a machine with a cache of its own sees it."""

    def see(name: str) -> ObjectStore:
        monkeypatch.setenv("DSOL_CACHE", str(tmp_path / name))
        object_store._opened.cache_clear()
        object_store.mounted.clear()
        store = open_store(uri)
        assert isinstance(store, ObjectStore)
        return store

    return see


def publish(store: Store, text: str = "x", mark: str = MARK, step: str = "index_clips") -> Artifact:
    def write(folder: Path) -> dict[str, object]:
        (folder / "deep").mkdir()
        (folder / "data.txt").write_text(text)
        (folder / "deep" / "more.txt").write_text("more")
        return {"rows": {}, "started": 1.0}

    return store.publish(step, mark, write)


def test_another_machine_finds_it_and_fetches_what_it_asks_for(machine) -> None:  # type: ignore[no-untyped-def]
    built = publish(machine("one"))
    two = machine("two")
    found = two.find("index_clips", MARK)
    assert found is not None and found.state == "reused" and found.content == built.content
    assert not (found.folder / "data.txt").exists(), "nothing is fetched before it is asked for"
    assert found.file("data.txt").read_text() == "x"
    assert not (found.folder / "deep" / "more.txt").exists()
    assert found.files() == ["data.txt", "deep/more.txt"]
    two.bring([found])
    assert (found.folder / "deep" / "more.txt").read_text() == "more"
    assert [(one.step, one.fingerprint) for one in two.artifacts()] == [("index_clips", MARK)]
    assert two.marks("index_clips") == [MARK] and two.marks("evaluate") == []
    with pytest.raises(StoreError, match=r"no file 'other.txt'.*--force index_clips"):
        found.file("other.txt")


def test_without_the_record_nothing_counts(machine) -> None:  # type: ignore[no-untyped-def]
    one = machine("one")
    publish(one)
    system, prefix = one.objects.filesystem()
    system.delete_file(f"{prefix}/index_clips/{MARK}/artifact.json")
    two = machine("two")
    assert two.find("index_clips", MARK) is None and list(two.artifacts()) == []


@pytest.mark.parametrize("damage", ["delete", "shorten", "same size", "record"])
def test_damage_in_the_store_is_never_trusted(machine, damage: str) -> None:  # type: ignore[no-untyped-def]
    built = publish(machine("one"), text="abc")
    two = machine("two")
    name = f"index_clips/{MARK}/{built.content}/data.txt"
    if damage == "delete":
        system, prefix = two.objects.filesystem()
        system.delete_file(f"{prefix}/{name}")
    elif damage == "record":
        two.objects.write(f"index_clips/{MARK}/artifact.json", b'{"half')
    else:
        two.objects.write(name, b"ab" if damage == "shorten" else b"abd")
    found = two.find("index_clips", MARK)
    if damage == "same size":
        assert found is not None
        with pytest.raises(StoreError, match="another checksum; run --force index_clips"):
            found.file("data.txt")
        assert not (found.folder / "data.txt").exists()
    else:
        assert found is None
        if damage != "record":
            assert machine("one").find("index_clips", MARK) is not None, "who has the files mends the store"
            assert machine("three").find("index_clips", MARK) is not None


def test_damage_in_the_cache_is_fetched_again(machine) -> None:  # type: ignore[no-untyped-def]
    publish(machine("one"), text="abc")
    two = machine("two")
    path = two.find("index_clips", MARK).file("data.txt")
    path.write_text("abd!")
    assert two.find("index_clips", MARK).file("data.txt").read_text() == "abc"


def test_a_replacement_reaches_the_others_and_frees_the_old_objects(machine) -> None:  # type: ignore[no-untyped-def]
    old = publish(machine("one"), text="old")
    two = machine("two")
    assert two.find("index_clips", MARK).file("data.txt").read_text() == "old"
    publish(two, text="new")
    one = machine("one")
    assert one.find("index_clips", MARK).file("data.txt").read_text() == "new"
    assert not one.objects.sizes(f"index_clips/{MARK}/{old.content}")


def test_a_replacement_that_was_not_uploaded_is_not_lost(machine, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    publish(machine("one"), text="old")
    two = machine("two")
    two.bring([two.find("index_clips", MARK)])

    def fail(*_: object) -> None:
        raise ObjectsError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "upload", fail)
        for name in ("one", "two"):
            with pytest.raises(ObjectsError):
                publish(machine(name), text=f"new of {name}")
    assert machine("one").find("index_clips", MARK).file("data.txt").read_text() == "new of one"
    assert machine("three").find("index_clips", MARK).file("data.txt").read_text() == "new of one"
    two = machine("two")  # what it made replaces another content than there is now
    assert two.find("index_clips", MARK).file("data.txt").read_text() == "new of one"
    assert not list(two.root.glob("*/.unsent-*"))


def test_an_old_artifact_is_not_put_over_a_newer_one_of_another_machine(  # type: ignore[no-untyped-def]
    machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(machine("one"), text="old")
    publish(machine("two"), text="newer")
    one = machine("one")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_describe", killed)  # while it takes the checksums, before its folder is renamed
        with pytest.raises(KeyboardInterrupt):
            publish(one, text="unfinished")
    assert machine("one").find("index_clips", MARK).file("data.txt").read_text() == "newer"
    assert machine("three").find("index_clips", MARK).file("data.txt").read_text() == "newer"


def test_what_is_published_here_while_another_process_looks_is_not_put_aside(  # type: ignore[no-untyped-def]
    machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(machine("one"), text="old")
    looking, real = machine("one"), ObjectStore._lost

    def meanwhile(*_: object) -> None:
        monkeypatch.setattr(ObjectStore, "_lost", real)
        publish(ObjectStore(looking.name), text="new")

    monkeypatch.setattr(ObjectStore, "_lost", meanwhile)
    assert looking.find("index_clips", MARK).file("data.txt").read_text() == "new"
    assert not list(looking.root.glob("index_clips/.old-*-????????")), "nothing was put aside by who looked"


def test_who_reads_what_another_machine_replaces_is_told_to_start_again(machine) -> None:  # type: ignore[no-untyped-def]
    publish(machine("one"), text="old")
    found = machine("two").find("index_clips", MARK)
    publish(machine("one"), text="new")
    with pytest.raises(StoreError, match="was replaced by another run while this one read it; start this one again"):
        found.file("data.txt")


def test_making_it_again_with_equal_bytes_mends_objects_of_equal_size(machine) -> None:  # type: ignore[no-untyped-def]
    one = machine("one")
    made = publish(one, text="good")
    one.objects.write(f"index_clips/{MARK}/{made.content}/data.txt", b"gOOd")
    with pytest.raises(StoreError, match="run --force index_clips"):
        machine("two").find("index_clips", MARK).file("data.txt")
    publish(machine("one"), text="good")
    assert machine("two").find("index_clips", MARK).file("data.txt").read_text() == "good"


def test_a_task_is_not_given_what_another_run_made_meanwhile(machine) -> None:  # type: ignore[no-untyped-def]
    packed = transport.pack(publish(machine("one"), text="mine").file("data.txt"))
    publish(machine("two"), text="another's")
    machine("node")
    with pytest.raises(StoreError, match="was replaced by another run meanwhile; start this one again"):
        transport.Desk().unpack(packed)


def test_files_with_the_longest_names_travel(machine, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / f"{'x' * 251}.mp4"
    file.write_text("film")
    name = machine("one").lend_outside(file)
    target = tmp_path / "there" / file.name
    assert machine("two").objects.download(name, target) and target.read_text() == "film"
    assert [one.name for one in target.parent.iterdir()] == [file.name]


KILLED = """
import os, signal, sys
from pathlib import Path
from tasks.adapters import objects, object_store
sent = 0
whole = objects.Objects.upload
def upload(self, name, source):
    global sent
    if sent == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    sent += 1
    whole(self, name, source)
objects.Objects.upload = upload
if sys.argv[2] == "2":
    objects.Objects.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
def write(folder):
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").write_text("b")
    return {"rows": {}}
object_store.open_store(sys.argv[1]).publish("index_clips", "a" * 16, write)
"""


@pytest.mark.parametrize("uploads", [0, 1, 2])
def test_a_kill_while_uploading_leaves_nothing_to_trust_and_little_to_do(  # type: ignore[no-untyped-def]
    machine, uri: str, uploads: int
) -> None:
    machine("one")
    words = [sys.executable, "-c", KILLED, uri, str(uploads)]
    ended = subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert machine("two").find("index_clips", MARK) is None
    found = machine("one").find("index_clips", MARK)
    assert found is not None, "it was published in the cache, and is uploaded by the next run"
    assert machine("two").find("index_clips", MARK).file("b.txt").read_text() == "b"


def test_a_run_on_another_machine_reuses_and_scopes_hold(machine) -> None:  # type: ignore[no-untyped-def]
    def write(out: StepOutput) -> None:
        (out.folder / "x").write_text("x")
        out.rows(read=1, written=1)

    first = Run(machine("one"))
    made = first.step("index_clips", {"a": 1}, {}, write)
    first.finish()
    assert made.state == "ran"
    second = Run(machine("two"))
    assert second.step("index_clips", {"a": 1}, {}, write).state == "reused"
    child = second.step("mix_scenes", {}, {"clips": made}, write)
    second.finish()
    assert child.state == "ran"
    store = machine("three")
    told = sorted([one["state"] for one in run["steps"]] for run in store.summaries())
    assert told == [["ran"], ["reused", "ran"]]
    from tasks.adapters.steps import Scope

    with pytest.raises(StepRefusedError, match=rf"not in s3://.*for other settings there are {made.fingerprint}"):
        Run(store, scope=Scope(only="mix_scenes")).step("index_clips", {"a": 2}, {}, write)


def test_paths_travel_to_machines_that_share_nothing_else(machine, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    video = tmp_path / "video.mp4"
    video.write_bytes(b"film")
    one = machine("one")
    built = publish(one)
    work = one.work("write_shards", MARK)
    (work / "done.json").write_text("{}")
    (work / "solo.tar").write_text("tar" * 40000)
    item = {"shards": built.folder, "file": str(built.folder / "data.txt"), "work": work, "tar": work / "solo.tar"}
    packed = transport.pack({**item, "new": work / "new.txt", "video": video, "text": "s3 and more"})

    def task(given: dict[str, Path]) -> str:
        assert all(str(given[name]).startswith(str(tmp_path / "two")) for name in given if name != "text")
        assert Path(given["shards"], "deep", "more.txt").read_text() == "more"
        assert Path(given["file"]).read_text() == "x" and given["tar"].read_text() == "tar" * 40000
        assert given["video"].read_bytes() == b"film" and given["text"] == "s3 and more"
        assert [path.name for path in given["work"].iterdir()] == ["done.json"], "small files come along"
        (given["work"] / "grid.tar").write_text("grid")
        (given["work"] / ".grid.tar.1").write_text("half")
        given["new"].write_text("new")
        return "done"

    two = machine("two")
    answer = transport.call(task, packed)  # type: ignore[arg-type]
    assert not [path for path in (two.root / ".desks").rglob("*") if path.is_file()]
    machine("one")
    assert transport.receive(answer) == "done"
    assert (work / "grid.tar").read_text() == "grid" and (work / "new.txt").read_text() == "new"
    assert {path.name for path in work.iterdir()} == {"done.json", "solo.tar", "grid.tar", "new.txt"}
    (work / "grid.tar").unlink()
    machine("one")
    transport.pack(work)
    assert (work / "grid.tar").read_text() == "grid", "what a killed process did not receive comes with the next try"


def test_one_cache_for_both_copies_nothing(machine) -> None:  # type: ignore[no-untyped-def]
    one = machine("one")
    built = publish(one)
    packed = transport.pack(built.folder)
    one.objects.delete(f"index_clips/{MARK}")
    assert transport.Desk().unpack(packed) == built.folder


def test_a_model_is_brought_with_its_dictionary(machine, uri: str) -> None:  # type: ignore[no-untyped-def]
    one = machine("one")
    run = Run(one)
    entries = publish(one, step="build_dictionary", mark="b" * 16)
    trained = run.step("train_stage_two", {}, {"dictionary": entries}, lambda out: (out.folder / "m").touch())
    two = machine("two")
    folder = Path(local_model(f"{uri}/train_stage_two/{trained.fingerprint}"))
    assert folder.is_relative_to(two.root) and (folder / "m").exists()
    assert (folder.parents[1] / "build_dictionary" / ("b" * 16) / "data.txt").exists()
    assert local_model("models:/dsol@champion") == "models:/dsol@champion"
    with pytest.raises(StoreError, match="run --from train_stage_two"):
        local_model(f"{uri}/train_stage_two/{'0' * 16}")


def test_wrong_addresses_are_refused(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSOL_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=r"of no known kind; expected --store FOLDER or s3://bucket/prefix"):
        open_store("gs://bucket/prefix")
    with pytest.raises(UsageError, match=r"names no bucket; expected s3://bucket/prefix"):
        open_store("s3:///prefix")
    with pytest.raises(UsageError, match="holds a password"):
        open_store("s3://key:secret@bucket/prefix")
    with pytest.raises(UsageError, match=r"is refused: .*colour"):
        open_store("s3://bucket/prefix?colour=red").find("evaluate", MARK)
    with pytest.raises(ObjectsError, match="a bucket that exists"):
        publish(open_store("s3://no-such-bucket/prefix"))
    assert json.loads(
        (open_store("s3://no-such-bucket/prefix").place("index_clips", MARK) / "artifact.json").read_text()
    )


def test_a_large_object_is_whole(uri: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(12 * 2**20))
    objects = Objects(uri)
    objects.upload("large", tmp_path / "large")
    assert objects.download("large", tmp_path / "again") and objects.sizes("large") == {"large": 12 * 2**20}
    assert (tmp_path / "again").read_bytes() == (tmp_path / "large").read_bytes()
    assert not objects.download("none", tmp_path / "none") and not (tmp_path / "none").exists()
    objects.delete("none")


def test_an_upload_that_fails_half_way_leaves_nothing(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").write_bytes(b"x" * 100)

    def copy(source, target, size):  # type: ignore[no-untyped-def]
        target.write(source.read(10))
        raise KeyboardInterrupt

    objects = Objects(uri)
    objects.check()
    monkeypatch.setattr("tasks.adapters.objects.shutil.copyfileobj", copy)
    with pytest.raises(KeyboardInterrupt):
        objects.upload("one", tmp_path / "one")
    assert objects.sizes("one") == {}


def test_a_missing_bucket_is_told_at_once(uri: str) -> None:
    with pytest.raises(ObjectsError, match="there is no bucket no-such-bucket"):
        Objects("s3://no-such-bucket/prefix").check()
