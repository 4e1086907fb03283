"""A run is opened with the user's folders, and closed when they cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsol_core.config import Compute
from dsol_core.types import UsageError
from flows import presets, session
from flows.session import Folders


def names(folder: Path) -> Folders:
    """A folder of each kind with a file in it."""
    for kind in ("data", "solo", "multi"):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "a.mp4").write_bytes(b"x")
    return Folders(*(str(folder / kind) for kind in ("data", "solo", "multi")))


def opened(preset: str, store: Path, folders: Folders):
    return session.opened("test", presets.load(preset), str(store), folders, Compute(workers=0), tags={})


def test_a_run_comes_with_the_users_media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, stores = names(tmp_path / "mine"), []
    real = session.open_store
    monkeypatch.setattr(session, "open_store", lambda place: stores.append(place) or real(place))
    monkeypatch.chdir(tmp_path)
    with opened("folders", Path("store"), Folders(None, given.solo, given.multi)) as (run, user):
        assert user is not None and user.files() == ["multi/a.mp4", "solo/a.mp4"]
        assert run.store.root == tmp_path / "store" == Path(user.record["store"])
    with opened("music_ours", Path("store"), Folders(given.data, None, None)) as (_, user):
        assert user is not None and user.files() == ["a.mp4"]
    with opened("smoke", Path("store"), Folders(None, None, None)) as (_, user):
        assert user is None
    assert stores == [str(tmp_path / "store")] * 3, "each run opens its store once, by its checked name"


@pytest.mark.parametrize(
    ("preset", "kinds", "said"),
    [
        ("smoke", ["solo"], "generates its videos, and"),
        ("folders", [], "give --solo FOLDER"),
        ("folders", ["data", "solo"], "give --solo FOLDER"),
        ("music_ours", [], "give --data FOLDER"),
        ("music_ours", ["data", "multi"], "give --data FOLDER"),
    ],
)
def test_folders_that_do_not_fit_the_preset_are_refused(
    preset: str, kinds: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_of_them, closed = vars(names(tmp_path / "mine")), []
    monkeypatch.setattr(session.cluster, "stop", lambda: closed.append(True))
    given = Folders(**{kind: folder if kind in kinds else None for kind, folder in all_of_them.items()})
    with pytest.raises(UsageError, match=said) as refused, opened(preset, tmp_path / "store", given):
        pytest.fail("the run was opened")
    (summary,) = (tmp_path / "store" / "runs").glob("*.json")
    assert closed and json.loads(summary.read_text())["steps"] == refused.value.dsol_summary["steps"] == []
