"""Pickled arrays are read in every form that numpy writes; what would run code is refused and runs nothing."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsol_core.types import DataError
from tasks.adapters.array_pickle import load_array

MASK = np.random.default_rng(0).random((7, 5)) > 0.5


def write(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["bool", "uint8", "int64", "float32", "float64", ">f4"])
def test_arrays_of_every_protocol(tmp_path: Path, protocol: int, kind: str) -> None:
    for array in (MASK.astype(kind), np.asfortranarray(MASK.astype(kind)), MASK.astype(kind)[::2, 1:]):
        found = load_array(write(tmp_path / "a", array, protocol))
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype.newbyteorder("=")


def test_names_of_the_old_numpy(tmp_path: Path) -> None:
    data = pickle.dumps(MASK.astype(np.float32), 2)
    assert b"numpy._core" in data
    (tmp_path / "a").write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    np.testing.assert_array_equal(load_array(tmp_path / "a"), MASK)


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """Python 2 wrote the bytes of an array as a string."""
    raw = np.arange(4, dtype="<f4").tobytes()
    body = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x02\x86"
    body += b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    (tmp_path / "a").write_bytes(body + b"U" + bytes([len(raw)]) + raw + b"tb.")
    np.testing.assert_array_equal(load_array(tmp_path / "a"), [[0, 1], [2, 3]])


@pytest.mark.parametrize("value", [[[1, 0], [0, 1]], ((1.5, 2.0),), [np.float32(3), 4], [MASK, ~MASK], True])
def test_plain_containers_of_numbers(tmp_path: Path, value: Any) -> None:
    np.testing.assert_array_equal(load_array(write(tmp_path / "a", value)), np.asarray(value))


def test_a_numpy_file(tmp_path: Path) -> None:
    np.save(tmp_path / "box.npy", np.eye(3))
    np.testing.assert_array_equal(load_array(tmp_path / "box.npy"), np.eye(3))
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="no pickled array"):
        load_array(tmp_path / "object.npy")


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *words: Any) -> None:
        self.call = (function, words)

    def __reduce__(self) -> Any:
        return self.call


def hostile(marker: Path) -> dict[str, Any]:
    code = f"open({str(marker)!r}, 'w').close()"
    array = np.zeros(2)
    return {
        "os.system": Call(os.system, f"touch {marker}"),
        "builtins.eval": Call(eval, code),
        "builtins.exec": Call(exec, code),
        "in a list": [1, 2, Call(exec, code)],
        "in an array": np.array([Call(exec, code)], object),
        "numpy.load": Call(np.load, str(marker), None, True),
        "numpy.save": Call(np.save, str(marker), array),
        "numpy.fromfile": Call(np.fromfile, "/etc/passwd"),
        "numpy.memmap": Call(np.memmap, str(marker), "u1", "w+", 0, (4,)),
        "numpy.testing": Call(np.testing.measure, code),
        "getattr": Call(getattr, "", "format"),
        "text": "a text",
        "dict": {"mask": array},
        "object array": np.array([None], object),
    }


@pytest.mark.parametrize("name", list(hostile(Path("x"))))
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path, name: str, protocol: int) -> None:
    marker = tmp_path / "ran"
    path = write(tmp_path / "a", hostile(marker)[name], protocol)
    with pytest.raises(DataError):
        load_array(path)
    assert not marker.exists() and not marker.with_suffix(".npy").exists()


def test_the_hostile_pickles_are_hostile(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(hostile(marker)["os.system"]))
    assert marker.exists()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
NDARRAY = b"cnumpy\nndarray\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        pickle.dumps(MASK)[:-20],
        b"\x80\x02r\xff\xff\xff\x7f.",  # a memory of 2**31 places
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"P0\n.",  # persistent id
        b"\x82\x01.",  # extension registry
        b"(i__main__\nx\n.",
        RECONSTRUCT + b"}b.",  # changes the stand-in
        RECONSTRUCT + b"N(NU\x05_workNtb.",
        NDARRAY + b")R.",
        NDARRAY + b".",
        RECONSTRUCT + NDARRAY + b"K\x00\x85U\x01b\x87R(K\x01J\xff\xff\xff\x7f\x85NNU\x00tb.",
        b"cnumpy\ndtype\nU\x01O\x85R.",
        b"cos\nsystem\n.",
    ],
)
def test_a_damaged_or_forged_pickle_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(DataError):
        load_array(tmp_path / "a")


def test_lists_that_repeat_themselves_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.adapters.array_pickle._NUMBERS", 50_000)  # 20 million are counted for ten seconds
    value: list[Any] = [1] * 100
    assert load_array(write(tmp_path / "a", [value] * 100)).shape == (100, 100)
    for _ in range(3):
        value = [value] * 100  # a file of a few hundred bytes, a hundred million numbers
    with pytest.raises(DataError, match="more than 50000 numbers"):
        load_array(write(tmp_path / "a", value))
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(DataError, match="levels"):
        load_array(write(tmp_path / "b", loop))


def test_a_wrong_length_and_a_missing_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pickle.dump(np.arange(300, dtype="u1"), buffer, 2)
    (tmp_path / "a").write_bytes(buffer.getvalue().replace(b"M,\x01\x85", b"M,\x02\x85"))
    with pytest.raises(DataError, match="300 bytes for an array"):
        load_array(tmp_path / "a")
    with pytest.raises(DataError, match="cannot be read"):
        load_array(tmp_path / "none")
