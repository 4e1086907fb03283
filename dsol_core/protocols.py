"""Benchmark protocols: what an item is, what a published benchmark asks, and the switches on which evaluators differ.

A protocol has two modes: "reference", the number the literature would print, bug for bug, and "correct". The two differ
in their `Switches` only, so that each bug has a name and can be switched alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from dsol_core.types import DataError

Mode = Literal["reference", "correct"]
MODES: tuple[Mode, ...] = ("reference", "correct")
SIDE = 224  # pixels of the square evaluation grid of every protocol here


@dataclass(frozen=True)
class Picture:
    """One frame to look at: the annotation's name of the medium, and the second in it (None: a picture file)."""

    name: str
    second: float | None = None


@dataclass(frozen=True)
class Sound:
    """What is heard: the annotation's name of the medium and the window in it.

    Attributes:
        name: of the medium.
        middle: second in the middle of the window; None for the middle of the whole recording.
        duration: of the window; None for the whole recording.
    """

    name: str
    middle: float | None = None
    duration: float | None = 3.0


@dataclass(frozen=True)
class Source:
    """One annotated sounding object, as the file tells it; `Switches.box_format` says how its numbers are read.

    Attributes:
        category: None where the benchmark names none.
        boxes: raw numbers of the annotation, four a box, in the annotation's own unit (`Protocol.box_unit` is one).
        mask: bool [H, W] in place of boxes (VGGSound-Instruments), or None.
        picture: which of the item's pictures it lies in.
    """

    category: str | None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    mask: Any = None
    picture: int = 0


@dataclass(frozen=True)
class Item:
    """One test item.

    Attributes:
        key: the annotation's own key or id.
        videos: ids of the videos it is made of; the bootstrap draws by them.
        pictures: one, or two for a pair.
        sounds: heard together.
        sources: empty for a negative of the extended sets.
        flags: what a switch may leave out or mend: "same-class", "class-10", "garbage", ...
        spare: pictures right of these that the mode leaves out; the maps of a file, made for all modes, cover them too.
        unboxed: classes that may sound although they have no box.
    """

    key: str
    videos: tuple[str, ...]
    pictures: tuple[Picture, ...]
    sounds: tuple[Sound, ...]
    sources: tuple[Source, ...]
    flags: frozenset[str] = frozenset()
    spare: int = 0
    unboxed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for source in self.sources:
            if not 0 <= source.picture < len(self.pictures):
                raise DataError(
                    f"item {self.key} has a source in picture {source.picture}; expected 0 to {len(self.pictures) - 1}"
                )


@dataclass(frozen=True)
class MaskRule:
    """How a map becomes a mask.

    Attributes:
        kind: "top_half" of the pixels; "relative": above `level` times the map's maximum; "absolute": above `level`;
            "truth_area": as many pixels as the ground truth has.
        level: of "relative" and "absolute".
        strict: whether a pixel at the threshold is left out (`>`) or not (`>=`).
    """

    kind: Literal["top_half", "relative", "absolute", "truth_area"] = "top_half"
    level: float = 0.5
    strict: bool = False


@dataclass(frozen=True)
class Switches:
    """Every point on which public evaluators differ (method-and-benchmarks, section 5); defaults are the correct side.

    Attributes:
        resize: kernel from the network's grid to 224 x 224; "corners" aligns them.
        normalise: "minmax" stretches each map to 0..1 before the mask rule.
        mask: rule.
        box_format: how four numbers are read.
        clip_overlap: whether overlapping boxes count once (else their sum, AVGN on VGGSound-Single and -Duet).
        clip_coordinates: "frame" clips to it and drops degenerate boxes; "below" clips below 0 only (LVS); "none".
        empty: items whose ground truth covers no pixel "fail" or are left out and reported ("exclude").
        consensus: whether the ground truth is the Flickr consensus: min(sum of boxes / 2, 1).
        partner_boxes: whether a pair's boxes are looked up through the partner's record (AVGN's bug).
        oracle: whether the ground-truth class picks the map (AVGN, T-VSL); else Hungarian matching, or the map of the
            class where the protocol is class-aware by definition (DSOL).
        canvas: of pairs: "separate" pictures, or side by side, "horizontal".
        mix: of a pair's sounds: "sum" of waveforms, "average" of RMS-normalised ones, "first" source only.
        aggregate: of several sources: "frame" averages IoUs over the sources of an item (DSOL), "source" counts each
            source as a sample (AVGN), "union" scores one map against all boxes.
        value: "rate" of success, or "mean" of the IoUs (T-VSL's code).
        swapped_ap: whether pixel AP gets its arguments swapped and binarised (AVGN).
        same_class_negatives: whether negatives of the image's own class stay (extended VGG-SS).
        misplaced_is_miss: whether a misplaced detection also counts as a missed one.
        all_thresholds: whether the extended AP and F1 use every confidence as threshold, from recall 0.
        class_10: "keep" the 25 Trumpet boxes under Flute, "drop" or "relabel" them (AudioSet-instrument).
        frames: "all" annotated ones, or the "first" of each second.
        nsa_channels: channels that NSA looks at; None for all.
        nsa_leaves_out: "all" channels of the sounding classes, or only the "first" of each class (DSOL's code; the two
            differ where several clusters make a class).
        nsa_unboxed: whether a class that may sound, but has no box (`Item.unboxed`), is "silent" to NSA, or "unknown"
            and left out.
        audio: "frame": the window around the frame; "video": the middle of the whole recording (AVGN on MUSIC).
        flickr_list: "250" test images (Senocak, SLAVC), or the "249" of LVS and EZ-VSL.
        count: what the Flickr consensus sums: every "boxes", or the union of each of the "annotators".
    """

    resize: Literal["bilinear", "bilinear_corners", "bicubic", "bicubic_corners"] = "bilinear"
    normalise: Literal["none", "minmax"] = "none"
    mask: MaskRule = MaskRule()
    box_format: Literal["xywh", "xyxy"] = "xywh"
    clip_overlap: bool = True
    clip_coordinates: Literal["frame", "below", "none"] = "frame"
    empty: Literal["fail", "exclude"] = "exclude"
    consensus: bool = False
    partner_boxes: bool = False
    oracle: bool = False
    canvas: Literal["separate", "horizontal"] = "horizontal"
    mix: Literal["sum", "average", "first"] = "average"
    aggregate: Literal["frame", "source", "union"] = "frame"
    value: Literal["rate", "mean"] = "rate"
    swapped_ap: bool = False
    same_class_negatives: bool = False
    misplaced_is_miss: bool = True
    all_thresholds: bool = True
    class_10: Literal["keep", "drop", "relabel"] = "drop"
    frames: Literal["all", "first"] = "all"
    nsa_channels: int | None = None
    nsa_leaves_out: Literal["all", "first"] = "all"
    nsa_unboxed: Literal["silent", "unknown"] = "unknown"
    audio: Literal["frame", "video"] = "frame"
    flickr_list: Literal["250", "249"] = "250"
    count: Literal["boxes", "annotators"] = "annotators"


@dataclass(frozen=True)
class Published:
    """A number of the literature: who, which metric, its value in percent, where it stands and how far to trust it.

    Attributes:
        method: name.
        metric: as the protocol names it.
        value: percent.
        source: of the number.
        evidence: "readme", "note", "leaderboard" or "memory" (never ground truth).
    """

    method: str
    metric: str
    value: float
    source: str
    evidence: Literal["readme", "note", "leaderboard", "memory"]


@dataclass(frozen=True)
class Protocol:
    """The declarative record of one benchmark.

    Attributes:
        name: of the command line, lower case with dashes: "vgg-ss".
        title: as papers write it.
        row: of the leaderboard (method-and-benchmarks, section 1).
        kind: "single" source, "multi" (several sources or a pair), "extended" (with negatives).
        annotations: files it needs, relative to the annotations folder; each may also end in ".gz"; one with a star
            stands for many files.
        media: what media it needs, in words, and where a user obtains them.
        items: items that the files hold, before a switch leaves any out; 0 where nobody has published the number.
        metrics: main one first: "iou@0.5", "auc", "ciou@0.3", "nsa", "ap", "max_f1", "loc_acc".
        reference: switches of the literature's evaluator.
        correct: ours.
        measures: one sentence.
        trap: one or two sentences: what is wrong with the number.
        published: numbers of the literature.
        box_unit: what the boxes' numbers are divided by (256 for Flickr).
        classes: the benchmark's class names in order, where they are fixed.
    """

    name: str
    title: str
    row: int
    kind: Literal["single", "multi", "extended"]
    annotations: tuple[str, ...]
    media: str
    items: int
    metrics: tuple[str, ...]
    reference: Switches
    correct: Switches
    measures: str
    trap: str
    published: tuple[Published, ...] = ()
    box_unit: float = 1.0
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def class_aware(self) -> bool:
        """Whether each source is compared with the map of its own class by definition: DSOL's, which report NSA."""
        return "nsa" in self.metrics

    def switches(self, mode: Mode) -> Switches:
        """Return the switches of a mode."""
        return self.reference if mode == "reference" else self.correct

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Return the switches in which the two modes differ: name -> (reference, correct)."""
        names = Switches.__dataclass_fields__
        pairs = {name: (getattr(self.reference, name), getattr(self.correct, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class Maps:
    """What a system says about one item, in its own grid.

    Attributes:
        key: of the item.
        maps: float [M, h, w].
        classes: of each map; None for a class-agnostic one.
        confidence: of each map, or None.
    """

    key: str
    maps: Any
    classes: tuple[str | None, ...]
    confidence: tuple[float | None, ...]
