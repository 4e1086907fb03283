import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_loops_agree_and_the_table_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("scoring_speed", ROOT / "benchmarks/scoring_speed.py")
    speed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speed)
    items = speed.random_items(40, 3)
    kept = {item.key: speed.RandomMaps(3)[item.key] for item in items}
    seconds, difference = speed.time_all(items, kept)
    assert len(seconds) == 3 and min(seconds) > 0 and difference < 2e-4
    assert speed.public_loop(items, kept) == speed.lean_loop(items, kept)
    out = tmp_path / "speed.md"
    monkeypatch.setattr(sys, "argv", ["scoring_speed.py", "--items", "20", "--repeats", "1", "--out", str(out)])
    speed.main()
    assert "| dsol |" in out.read_text() and out.read_text().strip() == capsys.readouterr().out.strip()
