"""A data set of one's own as benchmarks: records with the published evaluators' switches, scored by the same rules.

    rules = Rules(records("demo", "free", config), classes)
    rules.add("grid", key, videos, frame)          # any number of frames, in blocks
    rules.estimates(resamples)                     # "demo-grid.reference/ciou@0.3" -> Estimate

Reference is how DSOL's (Hu 2020) evaluator would score the frames, its rules kept bug for bug. Its step from network
outputs to class maps is the network's own and no switch here; what its scripts leave out by accident (all scenes but
the first 32, three of four frames) is scored. Correct is ours: on a grid of 224 x 224 pixels, and with an NSA level of
0.2, the metrics of the same name in `benchmarks` have the same values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dsol_core.benchmarks import Frame
from dsol_core.config import EvaluationConfig
from dsol_core.protocol_estimates import estimates
from dsol_core.protocol_scores import EMPTY, UNSOURCED, Scores, merge, score_items
from dsol_core.protocols import MODES, Item, Maps, MaskRule, Mode, Picture, Protocol, Sound, Source, Switches
from dsol_core.scoring import Classes, rules_of
from dsol_core.types import Estimate

BLOCK = 64  # frames whose maps are held before they are scored
_SOLO, _GRID, _MULTI = 0.1, 0.5, 0.2  # of a map's maximum: DSOL on MUSIC-Solo, -Synthetic and -Duet
_CHANNELS = 11  # that DSOL's NSA looks at in 2x2 scenes
_REASONS = {
    "single": "no boxes",
    "multi": "no boxes with a category, or a dictionary whose entries have none",
}


def records(data: str, multi: str, config: EvaluationConfig) -> dict[str, Protocol]:
    """Return the records of a data set: subset ("solo", "grid", the name of the multi-source frames) -> record.

    Args:
        data: name of the data set, the first part of the records' names.
        multi: what its multi-source frames are called.
        config: thresholds of the correct mode.
    """
    solo = Protocol(
        name=f"{data}-solo",
        title=f"{data}: frames with one source",
        row=0,
        kind="single",
        annotations=(),
        media="the data set's own frames",
        items=0,
        metrics=("iou@0.5", "auc"),
        reference=Switches(mask=_above(_SOLO), empty="fail"),
        correct=Switches(mask=_above(config.solo_threshold)),
        measures="Whether the class-agnostic map finds what sounds alone, as MUSIC-Solo asks.",
        trap="DSOL's threshold on solos is 0.1 of the maximum, 0.5 on 2x2 scenes: the two numbers are of other rules.",
    )
    grid = _scenes(
        f"{data}-grid",
        f"{data}: 2x2 scenes",
        _quirks(_GRID, channels=_CHANNELS),
        rules_of("grid", config),
        "Whether the sounding objects of a 2x2 scene are found by their own classes' maps, as MUSIC-Synthetic asks.",
    )
    free = _scenes(
        f"{data}-{multi}",
        f"{data}: frames with several sources",
        _quirks(_MULTI),
        rules_of(multi, config),
        "Whether the sounding objects of a frame are found by their own classes' maps, as MUSIC-Duet asks.",
    )
    return {"solo": solo, "grid": grid, multi: free}


def _above(level: float) -> MaskRule:
    return MaskRule("relative", level, strict=True)


def _quirks(level: float, *, channels: int | None = None) -> Switches:
    return Switches(mask=_above(level), empty="fail", nsa_channels=channels, nsa_leaves_out="first")


def _scenes(name: str, title: str, reference: Switches, config: EvaluationConfig, measures: str) -> Protocol:
    return Protocol(
        name=name,
        title=title,
        row=0,
        kind="multi",
        annotations=(),
        media="the data set's own frames",
        items=0,
        metrics=("ciou@0.3", "auc", "nsa"),
        reference=reference,
        correct=Switches(mask=_above(config.scene_threshold), nsa_leaves_out=config.nsa_leaves_out),
        measures=measures,
        trap="Each map is cut at its own maximum, so a model that does not listen scores the same.",
    )


def item_of(key: str, videos: Sequence[str], frame: Frame, protocol: Protocol) -> Item:
    """Return a frame as a test item: a source for each sounding box.

    Args:
        key: of the frame.
        videos: it is made of.
        frame: with boxes as fractions of the frame.
        protocol: of kind "multi" leaves boxes without a category out, which no class's map can be compared with.
    """
    heard = [box for box in frame.boxes if box.sounding and (box.category or protocol.kind == "single")]
    sources = tuple(Source(box.category, ((box.x, box.y, box.width, box.height),)) for box in heard)
    return Item(key, tuple(videos), (Picture(key),), (Sound(key),), sources)


def maps_of(key: str, frame: Frame, protocol: Protocol, classes: Classes) -> Maps:
    """Return what the model says: the class-agnostic map of a single source, else one map a dictionary entry.

    Raises:
        ValueError: the dictionary has another number of entries than the frame has maps.
    """
    answer = frame.answer
    if protocol.kind == "single":
        return Maps(key, answer.agnostic[None], (None,), (None,))
    names = tuple(classes.names[place] for place in classes.of_entry)
    confidence = tuple(float(value) for _, value in zip(names, answer.sounding, strict=True))
    return Maps(key, answer.maps, names, confidence)


class Rules:
    """Scores of a data set's frames under both modes of its records; holds the maps of one block of frames only.

    Args:
        protocols: subset -> record.
        classes: of the dictionary's entries.
        labelled: whether entries have categories; without, records of kind "multi" cannot be scored.
        block: frames scored at a time.
    """

    def __init__(
        self, protocols: Mapping[str, Protocol], classes: Classes, *, labelled: bool = True, block: int = BLOCK
    ) -> None:
        self.protocols, self.labelled = protocols, labelled
        self._classes, self._block = classes, block
        self._waiting: dict[str, list[tuple[Item, Maps]]] = {}
        self._scored: dict[tuple[str, Mode], list[Scores]] = {}
        self._frames: Counter[str] = Counter()

    def add(self, subset: str, key: str, videos: Sequence[str], frame: Frame) -> None:
        """Add a frame."""
        protocol = self.protocols[subset]
        self._frames[subset] += 1
        if protocol.kind == "multi" and not self.labelled:
            return
        waiting = self._waiting.setdefault(subset, [])
        waiting.append((item_of(key, videos, frame, protocol), maps_of(key, frame, protocol, self._classes)))
        if len(waiting) >= self._block:
            self._score(subset)

    def _score(self, subset: str) -> None:
        waiting, protocol = self._waiting.pop(subset, []), self.protocols[subset]
        said = {item.key: maps for item, maps in waiting}
        for mode in MODES if waiting else ():
            found = score_items([item for item, _ in waiting], said, protocol, protocol.switches(mode))
            self._scored.setdefault((subset, mode), []).append(found)

    def scores(self, subset: str, mode: Mode) -> Scores:
        """Return the scores of all frames of a subset so far, in the order in which they were added."""
        self._score(subset)
        self._scored[subset, mode] = [merge(self._scored.get((subset, mode), []))]
        return self._scored[subset, mode][0]

    def estimates(self, resamples: int) -> dict[str, Estimate]:
        """Return "<record>.<mode>/<metric>" -> estimate of every metric that can be had."""
        found: dict[str, Estimate] = {}
        for subset, protocol in self.protocols.items():
            for mode in MODES:
                scores, switches = self.scores(subset, mode), protocol.switches(mode)
                one = estimates(scores, protocol, switches, resamples=resamples) if scores.keys else {}
                found |= {self.key(subset, mode, name): one[name] for name in protocol.metrics if name in one}
        return found

    def key(self, subset: str, mode: Mode, metric: str) -> str:
        """Return a metric's full name."""
        return f"{self.protocols[subset].name}.{mode}/{metric}"

    def left_out(self, found: Mapping[str, Any]) -> dict[str, str]:
        """Return what has frames but is not in `estimates`, or was not counted: full name -> reason."""
        reasons = {}
        for subset, protocol in self.protocols.items():
            for mode in MODES if self._frames[subset] else ():
                keys = {name: self.key(subset, mode, name) for name in protocol.metrics}
                if not found.keys() & set(keys.values()):
                    reasons[self.key(subset, mode, "*")] = _REASONS[protocol.kind]
                    continue
                reasons |= {key: "no frame has a value" for key in keys.values() if key not in found}
                if told := self._told(subset, mode):
                    reasons[keys[protocol.metrics[0]]] = told
        return reasons

    def _told(self, subset: str, mode: Mode) -> str:
        counts, switches = self.scores(subset, mode).counts, self.protocols[subset].switches(mode)
        told = [f"{counts[UNSOURCED]} frame(s) without a box to compare with"] if counts[UNSOURCED] else []
        if counts[EMPTY] and switches.empty == "exclude":
            told.append(f"{counts[EMPTY]} truth(s) that cover no pixel are left out")
        return "; ".join(told)
