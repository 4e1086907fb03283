"""Units with two views that share their class."""

from __future__ import annotations

import numpy as np


def views(classes, each=40, seed=0):
    """Two views that share the class; each has stronger directions of its own, which cluster in other ways."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(classes), each)
    made = []
    for size in (60, 40):
        own = np.random.default_rng(seed + size).integers(5, size=len(truth))
        points = generator.normal(size=(len(truth), size)) + 2 * generator.normal(size=(classes, size))[truth]
        made.append(points + 4 * generator.normal(size=(5, size))[own])
    return made
