import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks/figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(root):
    """One finished run of a preset of photographs, as `dsol run --json` tells it."""
    report, videos = root / "evaluate/e1", root / "make_videos/m1"
    for folder in (report, videos):
        folder.mkdir(parents=True)
    made = {"commit": "c" * 40, "dirty": False, "cores": 2, "memory_bytes": 2**34, "python": "3.11.0"}
    (report / "artifact.json").write_text(json.dumps({"provenance": made}))
    notes = {
        "classes": {"banjo": {"test_notes_in_training": True}, "harp": {"test_notes_in_training": False}},
        "classes_without_uninterrupted_test": ["harp"],
        "dropped": [{"file": "x", "reason": "no such file"}],
    }
    (videos / "sources.json").write_text(json.dumps(notes))
    steps = [
        {"name": "make_videos", "state": "ran", "seconds": 3.0, "fingerprint": "m1"},
        {"name": "register_model", "state": "skipped", "seconds": 0.0, "fingerprint": None},
    ]
    metrics = {"real-av-grid/nsa": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 3}}
    facts = {"metrics": metrics, "seed": 0, "seconds": 4.0, "startup_seconds": {}}
    return {"report": str(report / "report.html"), "steps": steps, **facts}


def test_a_page_of_photographs_tells_which_classes_are_tested_weakly(figures, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["figures.py", "real_av"])
    run, arguments = _run(tmp_path), figures._arguments()
    page = figures._page(arguments, {"ours": [run]})
    assert "classes without an uninterrupted test recording: harp\n" in page
    assert "may hold notes of the test: banjo\n" in page
    assert "could not be used: 1\n" in page


def test_a_page_of_drawn_videos_has_no_such_part(figures, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["figures.py", "demo"])
    run = _run(tmp_path)
    (tmp_path / "make_videos/m1/sources.json").unlink()
    assert "sources.json" not in figures._page(figures._arguments(), {"ours": [run]})
