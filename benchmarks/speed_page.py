"""docs/results/speed.md and speed.json: the table of ratios, and a section for each stage."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

ROWS, PAGE = "speed.json", "speed.md"
_HEAD = """# Speed: ratios to the physical limit and to the plain way

    make bench

Ratios of speeds measured in turn on the same machine: median and range over the turns. "limit" is what the hardware
does without us, "plain" the way of the literature, written in `benchmarks/speed/` from its description. Rows without a
target are shown for what they tell. The commands, machines and commits stand in the sections.
"""


def update(folder: Path, module: str, sections: list[dict[str, Any]]) -> None:
    """Put a module's sections in the place of its old ones; rows and sections of other modules stay."""
    folder.mkdir(parents=True, exist_ok=True)
    rows_path, page_path = folder / ROWS, folder / PAGE
    rows = json.loads(rows_path.read_text()) if rows_path.exists() else []
    texts = _sections(page_path.read_text()) if page_path.exists() else {}
    shared = ("command", "machine", "quick")
    new = [row | {key: part[key] for key in shared} | {"module": module} for part in sections for row in part["rows"]]
    rows = sorted([row for row in rows if row["module"] != module] + new, key=lambda row: row["module"])
    texts[module] = "\n".join(_section(part) for part in sections)
    rows_path.write_text(json.dumps(rows, indent=1) + "\n")
    body = "".join(f"\n<!-- {name} -->\n{texts[name].strip()}\n" for name in sorted(texts))
    page_path.write_text(f"{_HEAD}\n{table(rows)}\n{body}")


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| what | ratio | range | target | holds |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        target = "" if row["target"] is None else f"{row['bound']} {number(row['target'])}"
        holds = {None: "", True: "yes", False: "**no**"}[row["holds"]] + (" (quick)" if row["quick"] else "")
        spread = f"{number(row['low'])} to {number(row['high'])}" if row["repeats"] > 1 else ""
        lines.append(f"| {row['name']} | {number(row['ratio'])} | {spread} | {target} | {holds} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Return a number with three digits, without an exponent where it is readable."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3
        return f"{value:,.{digits}f}"
    return f"{value:.2g}"


def _sections(page: str) -> dict[str, str]:
    parts = re.split(r"^<!-- (\w+) -->\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _section(part: dict[str, Any]) -> str:
    lines = [f"## {part['title']}", "", f"    {part['command']}", "", part["machine"] + f" {part['threads']} threads."]
    lines += ["", part["about"].strip(), ""]
    if part["speeds"]:
        lines += [f"| way | {part['unit']}, median | range |", "| --- | --- | --- |"]
    for name, values in part["speeds"].items():
        lines.append(f"| {name} | {number(median(values))} | {number(min(values))} to {number(max(values))} |")
    return "\n".join([*lines, "", part["notes"].strip(), ""])
