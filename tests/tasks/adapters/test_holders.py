"""K-means over Ray actors that keep their shards of the points: equal to one process, and only sums come back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsol_core.config import Compute
from dsol_core.kmeans_parts import Part, PartsKMeans, fit
from dsol_core.types import DataError
from tasks.adapters import cluster
from tasks.adapters.holders import Holders


class Watched(Part):
    """A part that remembers how many bytes its answers weighed, and can die."""

    sent = 0

    def assign(self, centers: Any) -> Any:
        answer = super().assign(centers)
        self.sent += answer.totals.nbytes + answer.counts.nbytes
        return answer

    def known(self) -> tuple[int, int, Any]:
        return os.getpid(), self.sent, self.labels

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def opened(path: Path) -> Watched:
    with np.load(path) as saved:
        return Watched(saved["points"], saved["ids"])


def shards(folder: Path, parts: int) -> tuple[Any, list[Path]]:
    points = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    points[:, :4] += 4 * np.random.default_rng(1).normal(size=(8, 4))[np.arange(3000) % 8]
    paths = []
    for number in range(parts):
        rows = np.arange(number, 3000, parts)
        paths.append(folder / f"{number}.npz")
        np.savez(paths[-1], points=points[rows], ids=rows)
    return points, paths


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Compute]:
    yield Compute(workers=1)
    cluster.stop()


def check(points: Any, paths: list[Path], compute: Compute, cores: float) -> None:
    with Holders(opened, paths, compute=compute, cores=cores) as parts:
        for spherical in (False, True):  # in this order: the sphere's unit vectors replace the points
            expected, labels = PartsKMeans().fit(points, 8, 5, spherical=spherical, restarts=3)
            centers, _ = fit(parts, 8, 5, spherical=spherical, restarts=3)
            known = parts.ask("known")
            np.testing.assert_allclose(centers, expected, atol=1e-4)
            for number, (_, _, found) in enumerate(known):
                np.testing.assert_array_equal(found, labels[number :: len(paths)])
    assert (len({pid for pid, _, _ in known}) == len(paths)) == (compute.workers > 0)
    steps = 2 * (3 * 52 + 1)
    assert all(0 < sent <= steps * 8 * (16 + 1) * 8 for _, sent, _ in known), "sums and counts only"


def test_in_this_process(tmp_path: Path) -> None:
    check(*shards(tmp_path, 3), Compute(workers=0), 1)


@pytest.mark.cluster
@pytest.mark.xdist_group("ray")
def test_actors_keep_their_points_and_give_the_result_of_one_process(tmp_path: Path, ray_here: Compute) -> None:
    check(*shards(tmp_path, 2), ray_here, 0.5)


@pytest.mark.cluster
@pytest.mark.xdist_group("ray")
def test_errors_and_lost_actors_are_told(tmp_path: Path, ray_here: Compute) -> None:
    _, paths = shards(tmp_path, 2)
    with pytest.raises(cluster.ClusterError, match="the cluster has"):
        Holders(opened, paths, compute=ray_here, cores=1000)
    with Holders(opened, paths, compute=ray_here, cores=0.5) as parts:
        with pytest.raises(DataError, match="cannot be cut into 5000"):
            fit(parts, 5000, 0)
        with pytest.raises(cluster.ClusterError, match="lost while it answered 'die'"):
            parts.ask("die")
