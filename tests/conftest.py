"""Shared by all tests: where CI's real data lie, and an environment that stays quiet and offline."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows import environment

environment.prepare()
# Two test processes share two cores: more threads would wait for each other at every barrier.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Files of minutes, longest first: two processes take files in this order, and a long one begun last runs alone.
LONGEST_FIRST = ("test_smoke.py", "test_register_model.py", "test_cluster.py", "test_prefect_server.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first; within a file and among the others the order stays."""
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real annotation files, photographs, recordings and videos that CI has beside the checkout."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("the real data of CI are not on this machine")
    return folder
