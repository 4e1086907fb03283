import importlib.util
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def views(_: Path):
    """Three classes that both views tell apart, with what only one of them has on top."""
    generator = np.random.default_rng(0)
    category = np.repeat(["bell", "cello", "flute"], 60)
    shared = np.eye(3)[np.unique(category, return_inverse=True)[1]]
    seen, heard = (np.concatenate([shared, shared, shared], 1) + 0.05 * generator.normal(size=(180, 9)) for _ in "ab")
    return "three", category, {"before training, shared space": [seen, heard], "after stage one": [seen]}


def test_the_page_tells_how_often_the_number_is_right(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("cluster_count_page", ROOT / "benchmarks/cluster_count.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    monkeypatch.setattr(page, "described", views)
    out = tmp_path / "page.md"
    words = ["cluster_count.py", "--store", "any", "--seeds", "2", "--largest", "6", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    page.main()
    text = out.read_text()
    assert "| three | 3 | before training, shared space | 3, 3 | 1.0 | 1.0 | +0.0 | 1.0 | 1.000 |" in text
    assert "| three | 3 | 20 | 3, 3 | +0.0 |" in text and text.count("\n| three | 3 | ") == 2 + 4
    assert np.unique(views(ROOT)[1][page.drawn(views(ROOT)[1], 2, 0, 7)], return_counts=True)[1].tolist() == [7, 7]
    assert "| three | 3 | after stage one | 3, 3 | 1.0 |" in text and text.strip() == capsys.readouterr().out.strip()
