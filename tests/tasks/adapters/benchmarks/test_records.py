"""The records of all benchmarks, and how they are found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dsol_core.protocols import MODES, Protocol, Switches
from dsol_core.types import DataError, UsageError
from tasks.adapters import benchmarks

NAMES = (
    "music-duet music-duet-avgn vggsound-duet vggsound-single music-solo music-solo-avgn vgg-ss flickr-soundnet "
    "vggsound-instruments-multi vggsound-instruments flickr-soundnet-extended vgg-ss-extended music-synthetic "
    "audioset-solo audioset-multi"
).split()
NOT_HERE = {"music-synthetic", "vggsound-instruments", "vggsound-instruments-multi"}  # their files are not in shared
ITEMS = {  # of reference, of correct
    "music-duet": (2569, 10284),
    "music-duet-avgn": (1020, 1020),
    "vggsound-duet": (5158, 5158),
    "vggsound-single": (5158, 5158),
    "music-solo": (3089, 12356),
    "music-solo-avgn": (2124, 2124),
    "vgg-ss": (5158, 5158),
    "flickr-soundnet": (249, 249),
    "flickr-soundnet-extended": (499, 499),
    "vgg-ss-extended": (10316, 9131),
    "audioset-solo": (4000, 4000),
    "audioset-multi": (473, 463),
}


def test_there_are_thirteen_benchmarks_two_of_them_in_two_variants() -> None:
    assert [one.name for one in benchmarks.all_protocols()] == NAMES
    assert [one.row for one in benchmarks.all_protocols()] == sorted(one.row for one in benchmarks.all_protocols())
    assert {one.row for one in benchmarks.all_protocols()} == set(range(1, 14))


@pytest.mark.parametrize("protocol", benchmarks.all_protocols(), ids=lambda one: one.name)
def test_a_record_is_whole_and_its_modes_differ_in_named_switches(protocol: Protocol) -> None:
    assert benchmarks.find(protocol.name) is protocol
    assert protocol.title and protocol.annotations and protocol.media and protocol.measures and protocol.trap
    assert protocol.published and len(protocol.metrics) > 1
    assert protocol.differences() and set(protocol.differences()) <= set(Switches.__dataclass_fields__)
    at = protocol.correct
    ours = Switches(box_format=at.box_format, consensus=at.consensus, aggregate=at.aggregate)
    assert at == ours, "the correct mode is the default but for how the data are laid out"
    for one in protocol.published:
        assert one.metric in {*protocol.metrics, "cap"} and 0 <= one.value <= 100 and one.source and one.method
        assert one.evidence in {"readme", "note", "leaderboard", "memory"}
    numbers = [(one.method, one.metric, one.source) for one in protocol.published]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("name", sorted(ITEMS))
def test_every_item_is_counted(annotations: Path, name: str) -> None:
    protocol = benchmarks.find(name)
    for mode, expected in zip(MODES, ITEMS[name], strict=True):
        reading = benchmarks.read_items(protocol, annotations, mode)
        assert len(reading) == len(list(reading)) == expected
        apart = sum(count for why, count in reading.left_out.items() if not ("of the other" in why or "(boxes" in why))
        whole = {"music-solo": 13472, "music-duet": 11512, "audioset-solo": 4012, "audioset-multi": 491}
        assert expected + apart == whole.get(name, protocol.items - (name == "flickr-soundnet" and mode == "reference"))


@pytest.mark.parametrize("name", sorted(NOT_HERE))
def test_missing_files_are_named_with_what_to_do(annotations: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"sample0000\.pkl|Zenodo record 4079386"):
        benchmarks.read_items(name, annotations)


def test_an_unknown_benchmark_or_mode_is_refused_with_the_known_ones(annotations: Path) -> None:
    with pytest.raises(UsageError, match=r"'vggss' is unknown; expected one of music-duet, .*did you mean vgg-ss\?"):
        benchmarks.find("vggss")
    with pytest.raises(UsageError, match="mode 'referenz' is unknown; expected one of reference, correct"):
        benchmarks.read_items("vgg-ss", annotations, "referenz")  # type: ignore[arg-type]


def test_switches_of_ones_own_take_the_place_of_a_mode(annotations: Path) -> None:
    switches = Switches(box_format="xyxy", same_class_negatives=True)
    assert len(benchmarks.read_items("vgg-ss-extended", annotations, switches)) == 10316


def test_a_file_is_found_at_any_depth_and_two_that_differ_are_refused(annotations: Path, tmp_path: Path) -> None:
    deep = tmp_path / "a/b"
    deep.mkdir(parents=True)
    shutil.copy(annotations / "vggss/vggss.json", deep)
    assert len(benchmarks.read_items("vgg-ss", tmp_path)) == len(benchmarks.read_items("vgg-ss", deep)) == 5158
    assert len(benchmarks.read_items("vgg-ss", deep / "vggss.json")) == 5158
    shutil.copy(annotations / "vggss/vggss.json", tmp_path)
    assert len(benchmarks.read_items("vgg-ss", tmp_path)) == 5158  # equal copies are one
    (tmp_path / "vggss.json").write_text("[]")
    with pytest.raises(DataError, match=r"vggss\.json and .*vggss\.json have one name and differ"):
        benchmarks.read_items("vgg-ss", tmp_path)
    with pytest.raises(DataError, match=r"holds no vggss\.json \(or vggss\.json\.gz\) at any depth"):
        benchmarks.read_items("vgg-ss", annotations / "music")
    with pytest.raises(DataError, match="does not exist; expected a folder"):
        benchmarks.read_items("vgg-ss", tmp_path / "nowhere")


def test_a_new_benchmark_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fourteenth.py").write_text(
        "from dataclasses import replace\n"
        "from tasks.adapters.benchmarks import vgg_ss\n"
        "from tasks.adapters.benchmarks.reading import Benchmark, Reading\n"
        "PROTOCOL = replace(vgg_ss.PROTOCOL, name='fourteenth', row=14)\n"
        "BENCHMARKS = (Benchmark(PROTOCOL, lambda annotations, switches: Reading(())),)\n"
    )
    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(tmp_path)])
    benchmarks._benchmarks.cache_clear()
    try:
        assert benchmarks.all_protocols()[-1].name == "fourteenth"
        assert not benchmarks.read_items("fourteenth", tmp_path).items
    finally:
        benchmarks._benchmarks.cache_clear()
