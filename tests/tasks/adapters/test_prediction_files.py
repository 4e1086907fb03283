"""Files of maps that other systems made: what comes out is what they put in, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsol_core.protocols import Maps
from dsol_core.types import DataError
from tasks.adapters import tables
from tasks.adapters.prediction_files import open_predictions, write_predictions


def row(item: Any = "a", name: str | None = None, numbers: Any = (0, 1, 2, 3, 4, 5), **more: Any) -> dict[str, Any]:
    return {"item": item, "class": name, "height": 2, "width": 3, "map": list(numbers), "confidence": None} | more


def write(path: Path, *rows: dict[str, Any]) -> Path:
    tables.write(path, "maps", rows)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((5, 3, 4, 6)).astype(np.float32)
    items = [Maps(f"item {n}", maps[n], ("cello", "flute", None), (0.5, 0.25, None)) for n in range(5)]
    path = tmp_path / "maps.parquet"
    assert write_predictions(path, items) == 15
    assert [one.name for one in tmp_path.iterdir()] == ["maps.parquet"]
    file = open_predictions(path, ["item 3", "item 1", "other"])
    assert (file.keys, file.rows, file.classes) == (["item 1", "item 3"], 15, {"cello", "flute"})
    assert file.unknown == {"item 0": 3, "item 2": 3, "item 4": 3}
    for one, n in zip(file.read(), (1, 3), strict=True):
        np.testing.assert_array_equal(one.maps, maps[n])
        assert (one.key, one.classes, one.confidence) == (f"item {n}", ("cello", "flute", None), (0.5, 0.25, None))


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float16()), pa.list_(pa.float32(), 6)]
)
def test_other_writers_types(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "maps.parquet"
    columns = {
        "item": pa.array(["a", "b"], pa.large_string()),
        "class": pa.nulls(2),
        "height": pa.array([2, 2], pa.int64()),
        "width": pa.array([3, 3], pa.uint16()),
        "map": pa.array([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]).cast(pa.list_(pa.float32())).cast(kind),
        "confidence": pa.array([1.0, None], pa.float64()),
        "remark": ["more columns", "do not matter"],
    }
    pq.write_table(pa.table(columns), path)
    first, second = open_predictions(path, ["a", "b"]).read()
    np.testing.assert_array_equal(first.maps, [[[0, 1, 2], [3, 4, 5]]])
    np.testing.assert_array_equal(second.maps, [[[5, 4, 3], [2, 1, 0]]])
    assert first.maps.dtype == np.float32 and (first.confidence, second.confidence) == ((1.0,), (None,))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row()], r"row 1 .*stand twice"),
        ([row("a", "cello"), row("a", None), row("a", "cello")], r"row 2 .*stand twice"),
        ([row("a"), row("b"), row("a", "cello")], r"row 2: item 'a' has rows further up"),
        ([row(None)], "row 0: item is None"),
        ([row("")], "row 0: item is ''"),
        ([row(height=0)], r"height and width are \(0, 3\)"),
        ([row(width=None)], r"height and width are \(2, None\)"),
        ([row(), row("a", "b", range(8), width=4)], "2 x 4, the item's first one 2 x 3"),
        ([row(confidence=float("nan"))], "confidence is nan"),
        ([row("b"), row(numbers=range(5))], r"row 1 .*has 5 numbers; expected height x width = 2 x 3 = 6"),
        ([row(numbers=range(7))], "has 7 numbers"),
        ([row(map=None)], "has 0 numbers"),
        ([row(numbers=[0, 1, float("nan"), 3, 4, 5])], "number 2 of the map is nan"),
        ([row(numbers=[0, float("inf"), 2, 3, 4, 5])], "number 1 of the map is inf"),
        ([row(numbers=[0, None, 2, 3, 4, 5])], "number 1 of the map is nan"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    path = write(tmp_path / "maps.parquet", *rows)
    with pytest.raises(DataError, match=message):
        list(open_predictions(path, ["a", "b"]).read())


def test_files_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        open_predictions(tmp_path / "none", [])
    (tmp_path / "text").write_text("item,class\n")
    with pytest.raises(DataError, match="cannot be read as a Parquet table"):
        open_predictions(tmp_path / "text", [])
    pq.write_table(pa.table({"item": ["a"], "Class": ["b"]}), tmp_path / "names")
    with pytest.raises(DataError, match="column 'class' is missing"):
        open_predictions(tmp_path / "names", [])
    good = pa.table({"item": [1], "class": ["x"], "height": [1], "width": [1], "map": [[1.0]], "confidence": [1.0]})
    pq.write_table(good, tmp_path / "types")
    with pytest.raises(DataError, match="column 'item' is int64"):
        open_predictions(tmp_path / "types", [])


def test_a_damaged_file_is_an_error_and_no_shorter_result(tmp_path: Path) -> None:
    path = tmp_path / "maps.parquet"
    maps = np.random.default_rng(0).random((1, 64, 64)).astype(np.float32)
    write_predictions(path, (Maps(str(n), maps, (None,), (None,)) for n in range(300)))
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 4000] = bytes(4000)
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        list(open_predictions(path, [str(n) for n in range(300)]).read())


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Half a gigabyte of maps in one row group, as a writer makes it that does not think of its readers."""
    maps = np.random.default_rng(0).random((20, 224 * 224)).astype(np.float32)
    part = pa.array(list(maps), pa.list_(pa.float32()))
    columns = {
        "item": pa.array([str(n) for n in range(2600)]),
        "class": pa.nulls(2600, pa.string()),
        "height": pa.array([224] * 2600),
        "width": pa.array([224] * 2600),
        "map": pa.chunked_array([part] * 130),
        "confidence": pa.nulls(2600, pa.float32()),
    }
    path = tmp_path / "maps.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=1 << 20, compression="none", use_dictionary=False)
    assert pq.read_metadata(path).num_row_groups == 1 and path.stat().st_size > 500e6
    del part, columns
    before, count, most = pa.total_allocated_bytes(), 0, 0
    for one in open_predictions(path, [str(n) for n in range(2600)]).read():
        count, most = count + 1, max(most, pa.total_allocated_bytes())
        if one.key == "1999":
            np.testing.assert_array_equal(one.maps.ravel(), maps[19])
    assert count == 2600 and most - before < 100 * 2**20
