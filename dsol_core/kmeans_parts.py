"""K-means of points that stay where they are: parts answer with sums and counts, only those and centers travel.

One coordinator asks all parts the same questions. The result does not depend on how the points are cut into parts: the
random draws belong to the points (a hash of seed, step and the point's id), and everything else is a sum or a minimum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from dsol_core.dictionary import ITERATIONS
from dsol_core.types import DataError, Worker

CHUNK = 8192  # points whose distances are held at a time


class Parts(Protocol):
    """All parts of the points, wherever they are."""

    def ask(self, question: str, *arguments: Any) -> list[Any]:
        """Call the method of that name of every `Part`; return the answers in the order of the parts."""
        ...


class Sums(NamedTuple):
    """What a part tells of its points under given centers."""

    totals: Any  # float64 [K, D], sum of the points of each cluster
    counts: Any  # int64 [K]
    inertia: float  # sum of squared distances to the nearest center
    changed: int  # points whose cluster is another one than before


class Drawn(NamedTuple):
    """A point that leaves its part, since it may start a cluster; the smallest tuple of all parts wins."""

    score: float
    tie: float
    id: int
    point: Any  # float64 [D]


class Part:
    """The points of one worker, in memory there."""

    def __init__(self, points: Any, ids: Any) -> None:
        """Keep float [N, D] points; ids uint64 [N] are their names in all random draws, unique over all parts."""
        self.points = np.asarray(points, np.float32)
        self.ids = np.asarray(ids, np.uint64)
        self.labels = np.full(len(self.points), -1, np.int64)
        self._nearest = np.full(len(self.points), np.inf)

    def describe(self, spherical: bool) -> tuple[int, int, int]:
        """Make the points unit vectors where asked; return their number, size and how many are not finite."""
        if spherical:
            norm = np.linalg.norm(self.points, axis=1, keepdims=True)
            self.points = self.points / np.maximum(norm, 1e-12)
        broken = int((~np.isfinite(self.points).all(1)).sum())
        return len(self.points), int(self.points.shape[1]), broken

    def draw(self, center: Any | None, salt: int) -> Drawn | None:
        """Take in a further start [D] (None: there is none yet) and draw this part's candidate for the next.

        k-means++ as a race: the point with the smallest of E_i / d_i^2, E_i exponential, is a draw with probability
        proportional to d_i^2; the winner over all parts is then a draw from all points.
        """
        if center is None:
            self._nearest = np.full(len(self.points), np.inf)
        else:
            self._nearest = np.minimum(self._nearest, self._distances(center[None])[:, 0])
        if not len(self.points):
            return None
        weight = np.ones(len(self.points)) if center is None else self._nearest
        race = -np.log(uniform(self.ids, salt))
        score = np.divide(race, weight, out=np.full(len(race), np.inf), where=weight > 0)
        best = np.lexsort((self.ids, race, score))[0]
        return Drawn(float(score[best]), float(race[best]), int(self.ids[best]), self.points[best].astype(np.float64))

    def assign(self, centers: Any) -> Sums:
        """Give each point its nearest center of [K, D]."""
        k = len(centers)
        totals, counts, inertia = np.zeros((k, centers.shape[1])), np.zeros(k, np.int64), 0.0
        labels = np.empty(len(self.points), np.int64)
        for rows, points in self._chunks():
            distance = _squared(points, centers)
            labels[rows] = distance.argmin(1)
            inertia += float(distance.min(1).sum())
            totals += np.eye(k)[labels[rows]].T @ points
            counts += np.bincount(labels[rows], minlength=k)
        changed = int((labels != self.labels).sum())
        self.labels = labels
        return Sums(totals, counts, inertia, changed)

    def farthest(self, centers: Any, count: int) -> list[Drawn]:
        """Return the points that are farthest from their centers of [K, D], at most `count`."""
        distance = self._distances(centers).min(1)
        chosen = np.lexsort((self.ids, -distance))[:count]
        return [Drawn(-float(distance[i]), 0.0, int(self.ids[i]), self.points[i].astype(np.float64)) for i in chosen]

    def _chunks(self) -> Iterable[tuple[slice, Any]]:
        for start in range(0, len(self.points), CHUNK):
            rows = slice(start, start + CHUNK)
            yield rows, self.points[rows].astype(np.float64)

    def _distances(self, centers: Any) -> Any:
        found = [_squared(points, centers) for _, points in self._chunks()]
        return np.concatenate(found) if found else np.zeros((0, len(centers)))


class LocalParts:
    """Parts in this process."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)

    def ask(self, question: str, *arguments: Any) -> list[Any]:
        """See `Parts.ask`."""
        return [getattr(part, question)(*arguments) for part in self.parts]


class WorkerParts:
    """One part on each training worker; every worker coordinates by itself and comes to the same answers."""

    def __init__(self, part: Part, worker: Worker) -> None:
        self.part, self.worker = part, worker

    def ask(self, question: str, *arguments: Any) -> list[Any]:
        """See `Parts.ask`; called on all workers alike."""
        return self.worker.gather_objects(getattr(self.part, question)(*arguments))


def fit(
    parts: Parts, k: int, seed: int, *, spherical: bool = False, restarts: int = 1, iterations: int = ITERATIONS
) -> tuple[Any, float]:
    """Cluster the points of all parts; afterwards `Part.labels` are their clusters.

    Args:
        parts: hold the points.
        k: number of clusters.
        seed: of the starts; the same for any number of parts.
        spherical: points and centers are unit vectors.
        restarts: runs from other starts; the best is kept.
        iterations: Lloyd steps of a run at most.

    Returns:
        Centers float32 [K, D] and the inertia: the sum of squared distances to the nearest center.

    Raises:
        DataError: fewer points than clusters, or values that are not finite.
    """
    told = parts.ask("describe", spherical)
    count, broken = sum(one[0] for one in told), sum(one[2] for one in told)
    if count < k:
        raise DataError(f"{count} points cannot be cut into {k} clusters; expected at least {k}")
    if broken:
        raise DataError(f"{broken} of {count} points are not finite")
    runs = [_lloyd(parts, k, seed, restart, spherical, iterations) for restart in range(restarts)]
    inertia, centers = min(runs, key=lambda run: run[0])
    parts.ask("assign", centers)
    return centers.astype(np.float32), inertia


def _lloyd(parts: Parts, k: int, seed: int, restart: int, spherical: bool, iterations: int) -> tuple[float, Any]:
    centers = _starts(parts, k, seed, restart)
    for step in range(iterations):
        sums = merge(parts.ask("assign", centers))
        if step and not sums.changed:
            break
        centers = _moved(parts, centers, sums, spherical)
    return merge(parts.ask("assign", centers)).inertia, centers


def merge(answers: Sequence[Sums]) -> Sums:
    """Add up what the parts told."""
    first, *others = answers
    for one in others:
        first = Sums(*(mine + its for mine, its in zip(first, one, strict=True)))
    return first


def _starts(parts: Parts, k: int, seed: int, restart: int) -> Any:
    """k-means++ over all parts, [K, D]; see `Part.draw`."""
    chosen: list[Any] = []
    for step in range(k):
        salt = (seed % 2**32 << 32) + (restart % 2**16 << 16) + step
        answers = parts.ask("draw", chosen[-1] if chosen else None, salt)
        chosen.append(min((one for one in answers if one), key=lambda one: one[:3]).point)
    return np.stack(chosen)


def _moved(parts: Parts, centers: Any, sums: Sums, spherical: bool) -> Any:
    """Return the means of the clusters; empty ones restart, each at another of the points that fit theirs least."""
    moved = sums.totals / np.maximum(sums.counts, 1)[:, None]
    empty = np.flatnonzero(sums.counts == 0)
    if len(empty):
        far = [one for answer in parts.ask("farthest", centers, len(empty)) for one in answer]
        for cluster, one in zip(empty, sorted(far, key=lambda one: one[:3]), strict=False):
            moved[cluster] = one.point
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12) if spherical else moved


def _squared(points: Any, centers: Any) -> Any:
    """Squared Euclidean distances [N, K] in float64; on the sphere they order like cosines."""
    distance = (points**2).sum(1)[:, None] - 2 * points @ centers.T + (centers**2).sum(1)
    return np.maximum(distance, 0)


def ids_of(names: Sequence[str]) -> Any:
    """Return an id for each name, uint64 [N], the same in every process."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, "<u8")


def uniform(ids: Any, salt: int) -> Any:
    """Return for each id [N] a number in (0, 1) that depends on id and salt only (splitmix64)."""
    state = np.asarray(ids, np.uint64) ^ _scramble(np.array([salt % 2**64], np.uint64))
    return ((_scramble(state) >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53


def _scramble(state: Any) -> Any:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
