"""The fixed text of docs/benchmarks.md: introduction, what the switches mean, how to cite."""

from __future__ import annotations

PREDICTORS = {  # of the scores without a model -> words
    "perfect ranking": "perfect ranking",
    "perfect system": "perfect system",
    "whole frame": "whole frame",
    "centred disk": "centred disk",
    "random quadrant": "random quarter",
}
EVIDENCE = {"readme": "R", "note": "N", "leaderboard": "L", "memory": "M"}
MEANINGS = {
    "resize": "kernel from the network's grid to 224 x 224",
    "normalise": "stretching of each map to 0..1 before the mask rule",
    "mask": "how a map becomes a mask",
    "box_format": "how the four numbers of a box are read; `xyxy` is a bug where the file holds widths and heights",
    "clip_overlap": "overlapping boxes count once (else their sum)",
    "clip_coordinates": "where coordinates beyond the frame are cut",
    "empty": "a picture whose ground truth covers no pixel: a failure of every method, or left out and counted",
    "consensus": "ground truth is the annotators' consensus",
    "partner_boxes": "a bug: boxes are looked up through the partner's record, so every picture gets another's",
    "oracle": "the class that sounds is given at test time and picks the map (else Hungarian matching)",
    "canvas": "one map over both pictures side by side, or one for each picture, which nothing else can enter",
    "mix": "how two sounds become one",
    "aggregate": "IoUs averaged over the sources of an item, or each source a sample",
    "value": "rate of success, or mean of the IoUs",
    "swapped_ap": "a bug: pixel AP gets prediction and truth swapped and the prediction binarised",
    "same_class_negatives": "negatives that show what sounds: another clip of the picture's own class",
    "misplaced_is_miss": "a misplaced detection is also a missed one",
    "all_thresholds": "AP and F1 over every confidence, from recall 0 (else about 200 and 10 of them)",
    "class_10": "25 Trumpet boxes under the index of Flute",
    "frames": "all annotated frames, or one a second",
    "nsa_channels": "channels that NSA looks at",
    "nsa_leaves_out": "channels of a sounding class that NSA leaves out: all, or the first only",
    "nsa_unboxed": "a class that may sound, but has no box: silent to NSA, or unknown and left out",
    "audio": "the sound around the frame, or the middle of the whole video's, the same for every frame",
    "flickr_list": "which list of test pictures",
    "count": "what the consensus sums: boxes, or each annotator's union of boxes",
}
HEAD = """\
# Benchmarks of sound source localisation: what their numbers mean

<!-- Written by benchmarks/benchmarks_page.py from the records in tasks/adapters/benchmarks; do not edit. -->

Thirteen public benchmarks ask a network where in a picture the sound comes from. Their numbers stand side by side in
tables, and most of them cannot be compared: evaluators differ in two dozen points, some of which are bugs, two
"MUSIC-Duet" share a name and no frame list, and a predictor that sees and hears nothing beats some published methods.

This page names each difference. Every benchmark has a record with two settings of the same switches:

- **reference**: what the literature's evaluator does, bug for bug, for comparison with printed numbers;
- **correct**: what we think the benchmark means to ask, for claims.

The two differ in the listed switches only, and each can be set alone. The scores below need the annotation files and
no model:

- the **perfect ranking** puts every pixel of the object first, so nothing that ranks pixels can score more under the
  same mask rule;
- a **perfect system** does so with the correct ground truth, whatever the evaluator compares it with: where it scores
  less than the perfect ranking, a bug takes the rest;
- the **centred disk** is the half of the frame nearest to its middle, the **whole frame** and a **random quarter** are
  what they say. A result that is not above the disk shows no listening.
"""
WHERE = {  # name in FIRST -> benchmark, mode, predictor, metric
    "pair_disk": ("vggsound-duet", "reference", "centred disk", "ciou@0.3"),
    "pair_perfect": ("vggsound-duet", "reference", "perfect system", "ciou@0.3"),
    "pair_disk_correct": ("vggsound-duet", "correct", "centred disk", "ciou@0.3"),
    "pair_ap": ("vggsound-duet", "reference", "centred disk", "ap"),
    "solo_ceiling": ("music-solo-avgn", "correct", "perfect ranking", "iou@0.5"),
    "solo_misread": ("music-solo-avgn", "reference", "perfect ranking", "iou@0.5"),
    "duet_disk": ("music-duet-avgn", "correct", "centred disk", "ciou@0.3"),
    "vgg_ceiling": ("vgg-ss", "reference", "perfect ranking", "iou@0.5"),
    "vgg_disk": ("vgg-ss", "reference", "centred disk", "iou@0.5"),
    "flickr_disk": ("flickr-soundnet", "reference", "centred disk", "iou@0.5"),
}
FIRST = """\
## Read this first

- **VGGSound-Duet.** As the released code asks (each picture alone, half of it as mask, IoU of 0.3), a disk in the
  middle of each picture scores {pair_disk} %. Every printed number of a method that ranks pixels is lower. A system
  that finds every object scores {pair_perfect} %, less than the disk, since it is compared with the boxes of other
  pictures. Asked over both pictures at once, with their own boxes, the disk scores {pair_disk_correct} %.
- **MUSIC-Solo, AVGN's frames.** The released code reads widths as corners; then no ranking of pixels can score more
  than {solo_misread} %. With boxes read rightly, objects are so small that none can score more than {solo_ceiling} %
  with half of the frame as mask. Printed are 58 to 98 %.
- **MUSIC-Duet, AVGN's frames.** They come from 6 videos: the 95 % interval of the disk goes from
  {duet_disk_interval} %. Two methods ten points apart may be equal.
- **VGG-SS.** The mask rule caps every method at {vgg_ceiling} %; the disk has {vgg_disk} %. The field's progress from
  30 to 41 % leads from below the disk to half-way between disk and cap. On **Flickr-SoundNet** the disk has
  {flickr_disk} %, and one picture is 0.4 %.
- **AP of the AVGN lineage.** Prediction and truth are swapped in the call. With half of the pixels as labels no map
  gets less than 41.4 %; the disk gets {pair_ap} % on VGGSound-Duet, against boxes of other pictures.
"""
OVERVIEW = """\
## Overview

Where the two modes differ, the cell reads reference / correct. "Printed" is the range of published values of the main
metric, whatever their lineage.
"""
CANNOT = """\

## Printed numbers that cannot be

A mask rule caps what a ranking of pixels can reach. With the upper half of the pixels as mask, an object that covers
less than a quarter of the frame can never get an IoU of 0.5, wherever the map points. These printed numbers of the main
metric lie above the ceiling of *both* modes. Methods that draw boxes of their own choice (GAR-SSL) are not bound by it;
all others must have been scored by another rule or on other ground truth than the public evaluator's, with its bug or
without.
"""
TAIL = """\
A second check is arithmetic. A rate over n pictures is a whole number divided by n, so with two decimals and a few
thousand pictures not every value is possible. Where the tables below say "no count of n", no whole number of n pictures
rounds or truncates to the printed value: the evaluated set had another size (videos that were no longer there, a list
of 249 for one of 250), or the value is an average of several runs. Neither is wrong, but both should be stated.

## How to cite a number

1. Name the protocol, not the data set: "MUSIC-Duet, AVGN's protocol, 1,020 frames of 6 videos".
2. Give the number of items that were scored and of those that were not, and why.
3. State the mask rule and put the centred disk and the ceiling beside the result.
4. Give the interval over videos, not over frames: frames of one video are nearly equal.
5. Say whether the class was given at test time, whether a saliency prior was mixed in, and which epoch was chosen on
   which data.
6. Quote reference numbers beside printed ones only, correct numbers for claims, and never mix the two in one column.

`dsol evaluate` prints 2 to 4 by itself. Sources of printed numbers: [R] the method's own README, [N] a third party's
notes on a paper, [L] a leaderboard page, [M] recollection, not verified; never take an [M] as ground truth.
"""
