from __future__ import annotations

from dataclasses import replace

import pytest

from dsol_core.protocols import Switches
from dsol_core.types import DataError
from tests.core.tiny_benchmarks import item, protocol, source


def test_a_source_lies_in_one_of_the_items_pictures() -> None:
    assert item(source(picture=1), pictures=2).sources[0].picture == 1
    with pytest.raises(DataError, match="item a has a source in picture 1; expected 0 to 0"):
        item(source(picture=1))


def test_modes_differ_in_their_switches_only() -> None:
    one = protocol(reference=Switches(box_format="xyxy"), correct=Switches())
    assert one.differences() == {"box_format": ("xyxy", "xywh")}
    assert one.switches("reference").box_format == "xyxy" and one.switches("correct") == Switches()
    assert replace(one, correct=one.reference).differences() == {}


def test_class_aware_protocols_are_those_with_nsa() -> None:
    assert protocol("multi", ("ciou@0.3", "nsa")).class_aware and not protocol("multi", ("ciou@0.3",)).class_aware
