"""Write docs/benchmarks.md: what every benchmark measures, its traps, ceilings, trivial scores and printed numbers.

    python benchmarks/benchmarks_page.py --annotations ../shared/annotations --out docs/benchmarks.md

What was measured lies beside the page (docs/benchmarks.json); without --annotations the page is written again from it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import benchmark_numbers
from benchmark_words import CANNOT, EVIDENCE, FIRST, HEAD, MEANINGS, OVERVIEW, PREDICTORS, TAIL, WHERE

from dsol_core.protocols import MaskRule, Mode, Protocol, Published
from tasks.adapters import benchmarks

MODES: tuple[Mode, ...] = ("reference", "correct")
# Sizes of the test sets that evaluators really used, the usual first; other benchmarks are too large or mixed to tell.
SIZES = {
    "vgg-ss": (5158, 4655),
    "vggsound-single": (5158,),
    "vgg-ss-extended": (5158,),
    "flickr-soundnet": (250, 249),
    "flickr-soundnet-extended": (250, 249),
    "vggsound-instruments": (446,),
}
Numbers = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, help="folder of the annotation files; measures again")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    measured = arguments.out.with_suffix(".json")
    if arguments.annotations:
        numbers = benchmark_numbers.measure(arguments.annotations)
        measured.write_text(json.dumps(numbers, indent=1) + "\n")
    arguments.out.write_text(page(json.loads(measured.read_text())))


def page(numbers: Numbers) -> str:
    """Return the whole page from the records and what was measured."""
    protocols = benchmarks.all_protocols()
    sections = [section(protocol, numbers.get(protocol.name)) for protocol in protocols]
    overview = table(
        ("benchmark", "row", "items", "videos", "metric", "perfect ranking", "whole frame", "centred disk", "printed"),
        [_overview(protocol, numbers.get(protocol.name)) for protocol in protocols],
    )
    return "\n".join([HEAD, first(numbers), OVERVIEW, overview, CANNOT, above(protocols, numbers), TAIL, *sections])


def first(numbers: Numbers) -> str:
    """Return the findings that concern everybody, with their numbers."""
    found: dict[str, str] = {}
    for name, (benchmark, mode, predictor, metric) in WHERE.items():
        value, low, high, _ = numbers[benchmark]["modes"][mode]["scores"][predictor][metric]
        found |= {name: f"{value:.1f}", f"{name}_interval": f"{low:.1f} to {high:.1f}"}
    return FIRST.format_map(found)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [tuple(head), *[tuple(row) for row in rows]]
    lines.insert(1, ("---",) * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _overview(protocol: Protocol, one: Numbers | None) -> tuple[str, ...]:
    link = f"[{protocol.title}](#{protocol.name})"
    main = protocol.metrics[0]
    values = [published.value for published in protocol.published if published.metric == main]
    printed = f"{min(values):g} - {max(values):g}" if values else ""
    if one is None:
        return link, str(protocol.row), _count(protocol.items), "", f"`{main}`", "", "", "", printed
    modes = [one["modes"][mode] for mode in MODES]
    items, videos = (_both([_count(mode[key]) for mode in modes]) for key in ("items", "videos"))
    names = benchmark_numbers.CEILING, "whole frame", benchmark_numbers.DISK
    cells = [_both([_value(mode["scores"][name].get(main)) for mode in modes]) for name in names]
    return link, str(protocol.row), items, videos, f"`{main}`", *cells, printed


def above(protocols: Iterable[Protocol], numbers: Numbers) -> str:
    """Return the list of printed numbers that no ranking of pixels can reach under the protocol's own mask rule."""
    lines = []
    for protocol in protocols:
        limit = highest(protocol, numbers.get(protocol.name))
        over = [one for one in protocol.published if limit is not None and one.metric == protocol.metrics[0]]
        over = [one for one in over if limit is not None and one.value > limit]
        if over:
            names = ", ".join(f"{one.method} {_printed(protocol, one)}" for one in over)
            lines.append(f"- **{protocol.title}**, at most {limit:.2f} %: {names}")
    return "\n".join(lines) + "\n"


def highest(protocol: Protocol, one: Numbers | None) -> float | None:
    """Return the higher of the two modes' ceilings of the main metric."""
    if one is None:
        return None
    rows = [one["modes"][mode]["scores"][benchmark_numbers.CEILING].get(protocol.metrics[0]) for mode in MODES]
    return float(max(row[0] for row in rows if row))


def section(protocol: Protocol, one: Numbers | None) -> str:
    """Return the section of a benchmark."""
    count = f"{protocol.items:,} items" if protocol.items else "items: nobody has published how many"
    lines = [
        f'<a id="{protocol.name}"></a>',
        "",
        f"## {protocol.title}",
        "",
        f"`{protocol.name}`, row {protocol.row} of the leaderboard, {count}, metrics "
        + ", ".join(f"`{metric}`" for metric in protocol.metrics),
        "",
        f"**Measures.** {protocol.measures}",
        "",
        f"**The trap.** {protocol.trap}",
        "",
        *([scores(protocol, one), ""] if one else ["Its annotation files were not at hand: nothing is measured.", ""]),
        "Where the modes differ:",
        "",
        switches(protocol, one),
        "",
        "Printed numbers (percent):",
        "",
        published(protocol, one),
        "",
        "Ours: not measured, media not available here.",
        "",
        *[f"- {_plain(note)}" for note in protocol.notes],
        f"- Annotations: {', '.join(f'`{name}`' for name in protocol.annotations)}. Media: {_plain(protocol.media)}.",
        "",
    ]
    return "\n".join(lines)


def scores(protocol: Protocol, one: Numbers) -> str:
    """Return the table of predictors that hear nothing, with what the annotation gave."""
    rows = []
    for name, words in PREDICTORS.items():
        cells = [one["modes"][mode]["scores"][name].get(metric) for metric in protocol.metrics for mode in MODES]
        rows.append((words, *[_interval(cell) if name == benchmark_numbers.DISK else _value(cell) for cell in cells]))
    head = [f"`{metric}` {mode}" for metric in protocol.metrics for mode in MODES]
    lines = ["Without a model (percent; in brackets the 95 % interval over videos):", "", table(("", *head), rows), ""]
    for mode in MODES:
        said = one["modes"][mode]
        parts = [f"{_count(count)} {why}" for why, count in said["left_out"].items()]
        left = f"; left out: {', '.join(parts)}" if parts else ""
        notes = f"; {'; '.join(said['notes'])}" if said["notes"] else ""
        lines.append(f"- {mode}: {said['items']:,} items of {said['videos']:,} videos{left}{notes}")
    return "\n".join(lines)


def switches(protocol: Protocol, one: Numbers | None) -> str:
    """Return the table of switches, with what each alone does to the reference's trivial scores."""
    metric = benchmark_numbers.telling(protocol)
    rows = []
    start = None
    if one:
        under = one["modes"]["reference"]["scores"]
        start = tuple(under[name].get(metric) for name in (benchmark_numbers.DISK, benchmark_numbers.CEILING))
    for name, (reference, correct) in protocol.differences().items():
        cells = ["", ""]
        if one and name in one["alone"]:
            alone = one["alone"][name]
            cells = [_number(alone[which]) for which in (benchmark_numbers.DISK, benchmark_numbers.CEILING)]
        elif one:
            cells = ["see `ap` above" if name == "swapped_ap" else "needs a system"] * 2
        rows.append((f"`{name}`", _setting(reference), _setting(correct), MEANINGS[name], *cells))
    if start:
        rows.insert(0, ("(none)", "", "", "the reference as it is", *[_value(cell) for cell in start]))
    head = f"disk, `{metric}`, if only this is corrected", f"perfect ranking, `{metric}`, same"
    return table(("switch", "reference", "correct", "what it is", *head), rows)


def published(protocol: Protocol, one: Numbers | None) -> str:
    """Return the table of printed numbers with remarks."""
    limit = highest(protocol, one)
    rows = [
        (item.method, f"`{item.metric}`", _printed(protocol, item), f"[{EVIDENCE[item.evidence]}] {item.source}",
         "; ".join(_remarks(protocol, item, one, limit)))
        for item in protocol.published
    ]  # fmt: skip
    return table(("method", "metric", "value", "source", "remark"), rows)


def _remarks(protocol: Protocol, item: Published, one: Numbers | None, limit: float | None) -> list[str]:
    remarks = []
    if item.metric == protocol.metrics[0] and one and limit is not None:
        disks = {mode: one["modes"][mode]["scores"][benchmark_numbers.DISK][item.metric][0] for mode in MODES}
        below = [mode for mode in MODES if item.value < disks[mode]]
        if item.value > limit:
            remarks.append(f"above the ceiling ({limit:.2f})")
        elif below:
            which = "" if len(below) > 1 else f" of {below[0]} ({disks[below[0]]:.2f})"
            remarks.append(f"below the centred disk{which}")
    if item.metric == protocol.metrics[0] and protocol.name in SIZES:
        usual, *others = SIZES[protocol.name]
        decimals = _decimals(protocol, item)
        if not fits(item.value, decimals, usual):
            also = [f"{size:,}" for size in others if fits(item.value, decimals, size)]
            remarks.append(f"no count of {usual:,}" + (f", but one of {' or '.join(also)}" if also else ""))
    return remarks


def _decimals(protocol: Protocol, item: Published) -> int:
    """Return the decimals of a source: the most that one of its numbers shows, since 39.50 is stored as 39.5."""
    texts = [f"{one.value:g}" for one in protocol.published if one.source == item.source]
    return max(len(text.partition(".")[2]) for text in texts)


def _printed(protocol: Protocol, item: Published) -> str:
    return f"{item.value:.{_decimals(protocol, item)}f}"


def _plain(text: str) -> str:
    """Return text in which Markdown sees no tags."""
    return text.replace("<", "&lt;")


def fits(value: float, decimals: int, size: int) -> bool:
    """Tell whether a whole number of `size` items, in percent, rounds or truncates to a printed value."""
    scale = 10**decimals
    near = int(value * size / 100)
    shares = [100 * scale * count / size for count in range(max(0, near - 1), min(size, near + 2) + 1)]
    return any(round(value * scale) in (round(share), int(share + 1e-9)) for share in shares)


def _setting(value: Any) -> str:
    if isinstance(value, MaskRule):
        sign = ">" if value.strict else ">="
        return {
            "top_half": f"{sign} the middle rank",
            "relative": f"{sign} {value.level:g} of the maximum",
            "absolute": f"{sign} {value.level:g}",
            "truth_area": "as many pixels as the truth",
        }[value.kind]
    words = {True: "yes", False: "no", None: "all"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _value(row: list[Any] | None) -> str:
    return "" if row is None else _number(row[0])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _interval(row: list[Any] | None) -> str:
    return _value(row) + (f" ({row[1]:.1f} - {row[2]:.1f})" if row and row[1] is not None else "")


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


def _both(cells: list[str]) -> str:
    return cells[0] if cells[0] == cells[1] else " / ".join(cell or "-" for cell in cells)


if __name__ == "__main__":
    main()
