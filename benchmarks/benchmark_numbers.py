"""Measure what a benchmark gives to predictors that neither look nor listen, and what each switch does to that.

Used by benchmarks_page.py. Everything here needs the annotation files only, no media.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsol_core import protocol_estimates, protocol_scores, trivial
from dsol_core.protocols import MODES, Item, Maps, Protocol, Switches
from dsol_core.types import DataError
from tasks.adapters import benchmarks
from tasks.adapters.benchmark_scores import Lazy

CEILING, DISK = "perfect ranking", "centred disk"
PERFECT = "perfect system"  # ranks the ground truth of the correct mode first, whatever the mode's evaluator looks for
# Switches that act on maps without sound; the others need a system's own maps.
SEEN = frozenset(
    "mask box_format clip_overlap clip_coordinates empty consensus partner_boxes canvas aggregate value class_10 "
    "frames same_class_negatives misplaced_is_miss all_thresholds flickr_list count".split()
)


def measure(annotations: Path) -> dict[str, Any]:
    """Return the numbers of every benchmark whose annotation files are there: name -> what `measure_one` says."""
    found = {}
    for protocol in benchmarks.all_protocols():
        start = time.monotonic()
        try:
            found[protocol.name] = measure_one(protocol, annotations)
        except DataError as error:
            print(f"{protocol.name}: not measured ({error})", file=sys.stderr)
        print(f"{protocol.name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return found


def measure_one(protocol: Protocol, annotations: Path) -> dict[str, Any]:
    """Return items, scores without a model in both modes, and what each switch alone does to the reference."""
    modes: dict[str, Any] = {}
    for mode in MODES:
        switches = protocol.switches(mode)
        reading = benchmarks.read_items(protocol, annotations, switches)
        modes[mode] = {
            "items": len(reading),
            "videos": len({video for item in reading for video in item.videos}),
            "left_out": dict(reading.left_out),
            "notes": list(reading.notes),
            "scores": {
                name: _estimates(reading.items, protocol, switches, name) for name in (CEILING, *trivial.PREDICTORS)
            },
        }
    modes["reference"]["scores"][PERFECT] = perfect(protocol, annotations)
    modes["correct"]["scores"][PERFECT] = modes["correct"]["scores"][CEILING]
    alone = {}
    for name, (_, correct) in protocol.differences().items():
        if name in SEEN:
            switches = replace(protocol.reference, **{name: correct})
            items = benchmarks.read_items(protocol, annotations, switches).items
            alone[name] = {one: _main(items, protocol, switches, one) for one in (CEILING, DISK)}
    return {"modes": modes, "alone": alone}


def perfect(protocol: Protocol, annotations: Path) -> dict[str, list[float | None]]:
    """Return what the reference's evaluator says of a system that finds every object where it really is."""
    really = {item.key: item for item in benchmarks.read_items(protocol, annotations, "correct")}
    items = benchmarks.read_items(protocol, annotations, "reference").items

    def say(item: Item) -> Maps:
        return trivial.ceiling(really.get(item.key, item), protocol, protocol.correct)

    return _table(items, protocol, protocol.reference, PERFECT, say)


def _say(protocol: Protocol, switches: Switches, name: str) -> Callable[[Item], Maps]:
    if name == CEILING:
        return lambda item: trivial.ceiling(item, protocol, switches)
    return lambda item: trivial.PREDICTORS[name](item, protocol)


def _estimates(
    items: Iterable[Item], protocol: Protocol, switches: Switches, name: str
) -> dict[str, list[float | None]]:
    return _table(items, protocol, switches, name, _say(protocol, switches, name))


def _table(
    items: Iterable[Item], protocol: Protocol, switches: Switches, name: str, say: Callable[[Item], Maps]
) -> dict[str, list[float | None]]:
    """Return metric -> value, the ends of its 95 % interval over videos (in percent), and the number of samples.

    Pixel AP, which takes longer than all the rest, is measured for the disk only.
    """
    sure = protocol.kind == "extended"  # of AP and F1 over confidences no interval: these predictors are always sure
    if not sure and name != DISK:
        protocol = replace(protocol, metrics=tuple(one for one in protocol.metrics if one != "ap"))
    scores = _scores(items, protocol, switches, say)
    means = replace(protocol, metrics=tuple(one for one in protocol.metrics if not (sure and one in ("ap", "max_f1"))))
    found = protocol_estimates.estimates(scores, means, switches)
    rest = protocol_estimates.estimates(scores, protocol, switches, resamples=2) if sure else {}
    table: dict[str, list[Any]] = {key: [one.value, one.low, one.high, one.n] for key, one in found.items()}
    table |= {key: [one.value, None, None, one.n] for key, one in rest.items() if key not in table}
    return {key: [_percent(value) for value in row[:3]] + [row[3]] for key, row in table.items()}


def _scores(
    items: Iterable[Item], protocol: Protocol, switches: Switches, say: Callable[[Item], Maps]
) -> protocol_scores.Scores:
    items = tuple(items)
    return protocol_scores.score_items(items, Lazy(items, say), protocol, switches)


def telling(protocol: Protocol) -> str:
    """Return the metric that shows what a switch does: the main one, max-F1 where negatives matter."""
    return "max_f1" if protocol.kind == "extended" else protocol.metrics[0]


def _main(items: Iterable[Item], protocol: Protocol, switches: Switches, name: str) -> float | None:
    """Return the telling metric in percent; pixel AP, which takes time, is left out."""
    metric = telling(protocol)
    kept = (metric, "nsa") if protocol.class_aware else (metric,)
    quick = replace(protocol, metrics=kept)
    found = protocol_estimates.estimates(
        _scores(items, quick, switches, _say(protocol, switches, name)), quick, switches, resamples=2
    )
    return _percent(found[metric].value) if metric in found else None


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)
