"""Shared by all tests: where CI's real data lie, and an environment that stays quiet and offline."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows import environment

environment.prepare()
# Two test processes share two cores: more threads would wait for each other at every barrier.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real annotation files, photographs, recordings and videos that CI has beside the checkout."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("the real data of CI are not on this machine")
    return folder
