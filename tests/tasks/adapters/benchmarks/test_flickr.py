"""Flickr-SoundNet: lists, the derived boxes, the XML files of the annotators, and the extended set."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsol_core import truths
from dsol_core.protocols import Picture, Sound
from dsol_core.types import DataError
from tasks.adapters import benchmarks
from tasks.adapters.benchmarks import flickr


def test_the_derived_boxes_and_the_two_lists(annotations: Path) -> None:
    correct = benchmarks.read_items("flickr-soundnet", annotations)
    reference = benchmarks.read_items("flickr-soundnet", annotations, "reference")
    assert len(correct) == len(reference) == 249
    assert correct.left_out == {"listed, but without boxes": 1} and not reference.left_out
    assert "lost the annotators' identity" in correct.notes[0] and not reference.notes
    counts = Counter(len(item.sources[0].boxes) for item in correct)
    assert counts[3] == 215 and counts[2] == 11 and sum(counts[n] for n in range(4, 8)) == 23
    listed = [line.split(",")[0] for line in (annotations / "flickr/flickr_test_249.csv").read_text().split()]
    assert [item.key for item in reference] == listed
    item = correct.items[0]
    assert (item.videos, item.pictures, item.sounds) == (
        (item.key,), (Picture(item.key),), (Sound(item.key, None, 3.0),),
    )  # fmt: skip


def test_the_consensus_covers_what_is_known_of_it(annotations: Path) -> None:
    protocol = benchmarks.find("flickr-soundnet")
    found = [
        truths.by_canvas(item, protocol.correct, protocol.box_unit)[0].weights
        for item in benchmarks.read_items(protocol, annotations)
    ]
    assert f"{100 * np.mean([one.mean() for one in found]):.1f}" == "46.2"
    assert f"{100 * np.mean([(one == 1).mean() for one in found]):.1f}" == "41.1"
    assert f"{100 * np.mean([(one == 0.5).mean() for one in found]):.1f}" == "10.3"


def test_the_extended_set_repeats_every_picture_with_another_ones_sound(annotations: Path) -> None:
    items = benchmarks.read_items("flickr-soundnet-extended", annotations).items
    negatives = [item for item in items if not item.sources]
    assert (len(items), len(negatives)) == (499, 250)
    assert len({item.pictures for item in negatives}) == 250
    assert all(item.pictures[0].name != item.sounds[0].name and len(item.videos) == 2 for item in negatives)
    assert {item.sounds[0].name for item in negatives} <= {item.pictures[0].name for item in negatives}


def xml(*annotators: list[tuple[int, int, int, int]]) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    people = "".join(
        "<annotator>"
        + "".join(
            "<bbox><label>1</label>"
            + "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, box, strict=True))
            + "</bbox>"
            for box in boxes
        )
        + "</annotator>"
        for boxes in annotators
    )
    return f'<?xml version="1.0"?>\n<!-- drawn by hand -->\n<annotation>{people}</annotation>\n'


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder like the official one: a list and a file a picture, of which the first annotator repeats himself."""
    (tmp_path / "flickr_test.csv").write_text("100,7\n200,0\n3908875350,3\n")
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml/100.xml").write_text(xml([(0, 0, 128, 128), (64, 64, 192, 192)], [(0, 0, 128, 256)]))
    (tmp_path / "xml/200.xml").write_text(xml([(10, 20, 30, 40)], [], [(30, 41, 200, 256)]))
    (tmp_path / "xml/3908875350.xml").write_text(xml([(1, 1, 2, 2)]))
    return tmp_path


def test_xml_files_are_read_as_every_reader_does(official: Path) -> None:
    reading = benchmarks.read_items("flickr-soundnet", official, replace(flickr.PROTOCOL.correct, count="boxes"))
    assert [item.key for item in reading] == ["100", "200", "3908875350"] and not reading.notes
    assert reading.items[1].sources[0].boxes == ((10, 20, 30, 40), (30, 41, 200, 256))
    assert len(benchmarks.read_items("flickr-soundnet", official, "reference")) == 2  # the list of 249 lacks the third


def test_xml_files_of_other_pictures_are_left_alone(official: Path) -> None:
    asked = replace(flickr.PROTOCOL.correct, count="boxes")
    before = benchmarks.read_items("flickr-soundnet", official, asked).items
    (official / "xml/1111111111.xml").write_text(xml([(200, 41, 30, 60)]))  # its box runs backwards
    (official / "000001.xml").write_text("<annotation><filename>000001.jpg</filename></annotation>")  # of another set
    assert benchmarks.read_items("flickr-soundnet", official, asked).items == before
    for path in (official / "xml").glob("[12]00.xml"):
        path.unlink()
    (official / "xml/3908875350.xml").unlink()
    (official / "flickr_test_boxes.json").write_text('{"boxes": {"100": [[0, 0, 9, 9]], "200": [[0, 0, 9, 9]]}}')
    assert [item.key for item in benchmarks.read_items("flickr-soundnet", official, asked)] == ["100", "200"]


def test_counting_annotators_lets_nobody_agree_with_himself(official: Path) -> None:
    def weights(mode: str) -> np.ndarray:
        switches = replace(flickr.PROTOCOL.correct, count=mode)  # type: ignore[arg-type]
        item = benchmarks.read_items("flickr-soundnet", official, switches).items[0]
        (target,) = truths.by_canvas(item, switches, flickr.GRID)
        return np.asarray(target.weights)

    first = np.zeros((224, 224))
    first[:112, :112] = 1
    first[56:168, 56:168] = 1
    second = np.zeros((224, 224))
    second[:, :112] = 1
    assert (weights("annotators") == np.minimum((first + second) / 2, 1)).all()
    twice = np.zeros((224, 224))
    twice[56:112, 56:112] = 1  # where the first annotator's boxes overlap
    assert (weights("boxes") == np.minimum((first + second + twice) / 2, 1)).all()
    assert weights("boxes")[60, 60] == weights("annotators")[60, 60] == 1  # the second covers it too


def test_two_boxes_of_one_annotator_alone_are_no_consensus(official: Path) -> None:
    (official / "xml/100.xml").write_text(xml([(0, 0, 128, 128), (0, 0, 128, 128)]))
    for mode, value in (("boxes", 1.0), ("annotators", 0.5)):
        switches = replace(flickr.PROTOCOL.correct, count=mode)  # type: ignore[arg-type]
        item = benchmarks.read_items("flickr-soundnet", official, switches).items[0]
        assert truths.by_canvas(item, switches, flickr.GRID)[0].weights.max() == value


def test_boxes_of_one_annotator_are_cut_apart_without_loss() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        low = generator.integers(0, 200, (int(generator.integers(1, 6)), 2))
        boxes = np.concatenate([low, low + generator.integers(0, 57, low.shape)], axis=1)
        cut = flickr.apart([tuple(map(float, box)) for box in boxes.tolist()])  # type: ignore[misc]
        union, total = np.zeros((256, 256), dtype=bool), np.zeros((256, 256), dtype=int)
        for left, top, right, bottom in boxes:
            union[top:bottom, left:right] = True
        for left, top, right, bottom in cut:
            total[int(top) : int(bottom), int(left) : int(right)] += 1
        assert (total == union).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation>", "cannot be read as XML"),
        ("<annotation/>", "holds no <bbox>"),
        (xml([(30, 41, 200, 300)]), "leaves the frame; expected x1, y1, x2, y2 as numbers from 0 to 256"),
        (xml([(200, 41, 30, 60)]), "runs backwards"),
        (xml([(1, 2, 3, 4)]).replace(">3<", ">three<"), "expected a list of four numbers"),
        (xml([(1, 2, 3, 4)]).replace("<ymax>4</ymax>", ""), "<bbox> with 4 children"),
        (xml([(1, 2, 3, 4)]).replace("bbox", "box"), "<box> with 5 children; expected <bbox>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a/>', "declares a document type"),
    ],
)
def test_xml_files_are_refused_where_they_are_wrong(official: Path, text: str, words: str) -> None:
    (official / "xml/200.xml").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        benchmarks.read_items("flickr-soundnet", official)
    assert "200.xml" in str(caught.value)


def test_pictures_without_boxes_are_an_error_but_for_the_known_one(official: Path) -> None:
    (official / "xml/3908875350.xml").unlink()
    assert benchmarks.read_items("flickr-soundnet", official).left_out == {"listed, but without boxes": 1}
    (official / "xml/200.xml").unlink()
    with pytest.raises(DataError, match="2 of 3 listed pictures have no boxes, first 200"):
        benchmarks.read_items("flickr-soundnet", official)


def test_a_short_list_and_a_wrong_box_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "flickr_test.csv").write_text("100,7\n")
    (tmp_path / "flickr_test_boxes.json").write_text(json.dumps({"boxes": {"100": [[0, 0, 10, 10]]}}))
    assert "flickr_test.csv lists 1 ids" in benchmarks.read_items("flickr-soundnet", tmp_path).notes[0]
    (tmp_path / "flickr_test_boxes.json").write_text(json.dumps({"100": [[0, 0, 10, 10]]}))
    with pytest.raises(DataError, match=r'expected {"boxes"'):
        benchmarks.read_items("flickr-soundnet", tmp_path)
    (tmp_path / "flickr_test.csv").write_text("100,7\n100,8\n")
    with pytest.raises(DataError, match="'100' stands twice"):
        benchmarks.read_items("flickr-soundnet", tmp_path)
