from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dsol_core.types import Box
from tasks.adapters import page
from tasks.adapters.images import decode_image
from tasks.adapters.steps import Run
from tasks.adapters.store import Artifact
from tasks.evaluate import evaluate
from tests.tasks.evaluated import EXPERIMENT, make


class Tags(HTMLParser):
    """Checks that tags close in order, and collects attributes."""

    EMPTY = frozenset({"meta", "img", "br", "line", "circle", "rect", "path", "use", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids |= {found["id"]} if found.get("id") else set()
        self.links += [v for k, v in attrs if k in {"href", "xlink:href"} and v]
        self.sources += [found["src"]] if found.get("src") else []
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    root = tmp_path_factory.mktemp("store")
    world = make(root)
    return evaluate.fn(
        Run.local(root), world.predictions, world.data, world.stage_one, world.dictionary, world.stage_two, EXPERIMENT
    )


@pytest.fixture(scope="module")
def html(made: Artifact) -> str:
    return made.file("report.html").read_text()


def test_the_page_is_well_formed_small_and_refers_to_nothing_outside(html: str) -> None:
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    assert {link[1:] for link in tags.links if link.startswith("#")} <= tags.ids
    assert all(link.startswith("#") for link in tags.links)
    assert all(source.startswith("data:image/jpeg;base64,") for source in tags.sources)
    assert not re.search(r"url\((?!#)|@import|<script|<link", html)
    assert len(html) < 6_000_000


def test_the_page_has_its_sections_and_numbers(html: str, made: Artifact) -> None:
    for title in ("Metrics", "Scenes", "Classes", "Dictionary", "Training", "Data", "Provenance"):
        assert f"<h2>{title}</h2>" in html
    value = made.record["metrics"]["toy-grid/ciou@0.3"]
    assert f"<b>{value:.3f}</b>" in html
    for rank in ("best", "median", "worst"):
        assert f"<h3>grid: {rank}</h3>" in html
    assert "c0ffeec0ff" in html and "0123456789abcdef" in html  # commit, fingerprint


def test_copied_weights_are_told_with_their_own_training(html: str) -> None:
    rows = [row for row in html.split("<tr>") if "<td>train_stage_two</td>" in row or ">train_stage_two<" in row]
    assert any("4,321.0" in row and ">16<" in row for row in rows)


def test_losses_are_counted_and_foreign_text_is_escaped(html: str) -> None:
    assert "<td>no audio stream</td>" in html.replace(' class="w"', "")
    assert "decoding failed &lt;at&gt; 3 s" in html
    assert "quarantined" in html and "missing" in html


def test_each_class_of_a_scene_has_its_panel_with_boxes(html: str) -> None:
    scene = html[html.index("<h3>grid: best</h3>") :]
    scene = scene[: scene.index("<h3>grid: median</h3>")]
    assert scene.count('class="scene') == 2 + 1  # two scenes in one grid
    assert scene.count('tag sounding">sounds') == 4 and scene.count('tag silent">silent') == 4
    assert scene.count("#2ecc71") == 2 * (2 + 2) and scene.count("#ff4757") == 2 * (2 + 2)  # the frame's, and each own


def test_markdown_tells_metrics_losses_and_what_is_missing(made: Artifact) -> None:
    text = made.file("report.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| toy-solo/iou@0.5"))
    value = made.record["metrics"]["toy-solo/iou@0.5"]
    assert row.split("|")[2].strip() == f"{value:.3f}"
    assert row.count("|") == text.splitlines()[4].count("|") == 10
    assert "- ingest_videos: 2 dropped, no audio stream" in text


def test_pictures_are_strips_of_equal_height(made: Artifact) -> None:
    names = [name for name in made.files() if name.startswith("pictures/")]
    assert len(names) == 3 * 3 * 2
    picture = decode_image(made.file("pictures/grid-best-1.png"))
    panels = (picture.shape[1] + 6) // (64 + 6)
    assert picture.shape[0] == 64 and picture.shape[1] == panels * 70 - 6 and panels >= 5


def test_figures_take_the_colour_of_the_page(html: str) -> None:
    assert html.count("<svg") > 20
    assert "currentColor" in html and "#010203" not in html


def test_interval_bars_leave_out_unknown_rivals() -> None:
    bar = page.interval(0.5, 0.25, 0.75, {"one": 1.0, "two": None}, width=108)
    assert 'cx="54.0"' in bar and 'x1="29.0"' in bar and 'x2="79.0"' in bar
    assert bar.count("<title>") == 1 and "one 1.000" in bar


def test_text_is_escaped_everywhere_it_enters() -> None:
    assert page.text('<b>"&') == "&lt;b&gt;&quot;&amp;"
    made = page.boxes([(0, 0, 0.5, 0.5, True, "<cello>"), (0.5, 0.5, 0.5, 0.5, False, "x")])
    assert "&lt;cello&gt;" in made and made.index("#2ecc71") < made.index("#ff4757")
    assert page.boxes([]) == ""


def test_table_columns_stand_where_they_should() -> None:
    made = page.table(["a", "b"], [["1", "2"]], numbers=[1], wide=0)
    assert '<td class="w">1</td><td class="n">2</td>' in made


def test_a_written_report_needs_no_pictures(tmp_path: Path) -> None:
    world = make(tmp_path, labels=False, boxes=False, subsets=("solo",))
    found = evaluate.fn(
        Run.local(tmp_path),
        world.predictions,
        world.data,
        world.stage_one,
        world.dictionary,
        world.stage_two,
        EXPERIMENT,
    )
    html = found.file("report.html").read_text()
    assert "agreement" in html and "<h3>Success curves</h3>" not in html
    assert Box(0, 0, 1, 1).category is None


def test_the_dictionary_tells_the_purity_of_each_entry_where_labels_exist(tmp_path: Path) -> None:
    from types import SimpleNamespace

    import numpy as np

    from dsol_core.dictionary import ObjectDictionary
    from tasks.adapters import report_sections
    from tasks.adapters.store import write_json

    entries = ObjectDictionary(np.eye(2), np.array([6, 2]), ("cluster-00", "cluster-01"), ("tuba", "cello"))
    known = [{"entry": "cluster-00", "purity": 0.83}, {"entry": "cluster-01", "purity": None}]
    report = SimpleNamespace(entries=entries, parents={"dictionary": SimpleNamespace(folder=tmp_path)})
    for told in (None, known):
        write_json(tmp_path / "summary.json", {"entries": told})
        section = report_sections._dictionary(report)  # type: ignore[arg-type]
        assert ("purity" in section.lower()) == ("0.83" in section) == (told is not None)
