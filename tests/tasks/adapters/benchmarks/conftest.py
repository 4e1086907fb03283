from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def annotations(shared_dir: Path) -> Path:
    return shared_dir / "annotations"
