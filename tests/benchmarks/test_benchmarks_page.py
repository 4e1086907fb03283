from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dsol_core.protocols import Switches
from tasks.adapters import benchmarks

ROOT = Path(__file__).resolve().parents[2]
PAGE, NUMBERS = ROOT / "docs/benchmarks.md", ROOT / "docs/benchmarks.json"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("benchmarks_page")


def test_the_page_is_what_the_records_and_the_measured_numbers_say(script: Any) -> None:
    assert PAGE.read_text() == script.page(json.loads(NUMBERS.read_text())), (
        "a record or the script changed; write the page again: python benchmarks/benchmarks_page.py "
        "--annotations ../shared/annotations --out docs/benchmarks.md"
    )


def test_the_page_has_a_section_for_each_benchmark_with_all_its_switches_and_numbers(script: Any) -> None:
    text = PAGE.read_text()
    for protocol in benchmarks.all_protocols():
        start = text.index(f'<a id="{protocol.name}"></a>')
        section = text[start : text.find("<a id=", start + 1)]
        assert protocol.measures in section and protocol.trap in section
        assert all(f"| `{name}` |" in section for name in protocol.differences())
        rows = [line.split(" | ") for line in section.splitlines() if " | [" in line]
        assert [(row[0].removeprefix("| "), row[1].strip("`"), float(row[2])) for row in rows] == [
            (one.method, one.metric, one.value) for one in protocol.published
        ]
        assert "not measured" in section
    assert not re.search(r"\bnan\b|None|/work|/home|<id>", text)


def test_every_switch_is_explained(script: Any) -> None:
    assert set(script.MEANINGS) == set(Switches.__dataclass_fields__)
    assert script.benchmark_numbers.SEEN <= set(script.MEANINGS)


@pytest.mark.parametrize(
    ("value", "decimals", "size", "answer"),
    [
        (86.0, 1, 250, True),  # 215 of 250
        (86.0, 1, 249, False),  # 214 of 249 is 85.94, 215 is 86.35
        (83.94, 2, 249, True),  # 209 of 249
        (83.94, 2, 250, False),
        (41.42, 2, 5158, False),  # 2136 of 5158 is 41.411, 2137 is 41.431
        (41.42, 2, 4655, True),  # 1928 of 4655
        (29.91, 2, 5158, True),  # 1543 of 5158
        (66.7, 1, 3, True),
        (66.6, 1, 3, True),  # truncated
        (66.5, 1, 3, False),
        (100.0, 1, 7, True),
        (0.0, 1, 7, True),
    ],
)
def test_a_printed_rate_must_be_a_count(script: Any, value: float, decimals: int, size: int, answer: bool) -> None:
    assert script.fits(value, decimals, size) is answer
    shares = [100 * 10**decimals * count / size for count in range(size + 1)]  # every count, the slow way
    assert (round(value * 10**decimals) in {how(share + 1e-9) for share in shares for how in (round, int)}) is answer


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flickr-soundnet", "audioset-multi", "music-solo-avgn", "vgg-ss-extended"])
def test_the_measured_numbers_are_measured_again(script: Any, shared_dir: Path, name: str) -> None:
    again = script.benchmark_numbers.measure_one(benchmarks.find(name), shared_dir / "annotations")
    assert json.loads(json.dumps(again)) == json.loads(NUMBERS.read_text())[name]
