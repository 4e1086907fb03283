"""A real Prefect server, a real process worker, and a cron that really fires.

The guard of the two pins in pyproject.toml: with a newer fastapi every flow dies, with a newer SQLAlchemy deployments
look active and never run.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.servers import BIN, ROOT, get, wait_for

pytestmark = [pytest.mark.server, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def deployed(prefect_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The deployments of infra/prefect.yaml, the data flow set to the smoke preset and a cron of every minute."""
    folder = tmp_path_factory.mktemp("deploy")
    env = {**prefect_server, "DSOL_STORE": str(folder / "store")}
    plan = yaml.safe_load((ROOT / "infra" / "prefect.yaml").read_text())
    data = next(one for one in plan["deployments"] if one["name"] == "data")
    data["parameters"] = {"preset": "smoke", "store": "{{ $DSOL_STORE }}"}
    data["schedules"] = [{"cron": "* * * * *", "timezone": "UTC", "active": True}]
    (folder / "prefect.yaml").write_text(yaml.safe_dump(plan))
    for words in (
        ["work-pool", "create", "local", "--type", "process"],
        ["deploy", "--all", "--no-prompt", "--prefect-file", str(folder / "prefect.yaml")],
    ):
        subprocess.run([BIN / "prefect", *words], env=env, cwd=folder, check=True, capture_output=True, timeout=120)
    worker = subprocess.Popen(
        [BIN / "prefect", "worker", "start", "--pool", "local"],
        env=env,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield env
    finally:
        worker.terminate()
        worker.wait(200)  # the cron may have begun another run, which ends first


def runs(api: str, **condition: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(f"{api}/flow_runs/filter", {"flow_runs": condition, "sort": "START_TIME_ASC"})
    return found


@pytest.mark.slow
def test_a_cron_fires_and_its_run_completes(deployed: dict[str, str]) -> None:
    api = deployed["PREFECT_API_URL"]

    def finished() -> dict[str, Any] | None:
        ended = runs(api, state={"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}})
        return next((one for one in ended if one["auto_scheduled"]), None)

    run = wait_for(finished, 300, every=2, describe="the end of a scheduled run")
    assert run["state"]["type"] == "COMPLETED", run["state"]["message"]
    assert run["parameters"]["preset"] == "smoke"
    assert (Path(deployed["DSOL_STORE"]) / "write_shards").is_dir()


def test_the_nightly_deployment_waits_for_its_hour(deployed: dict[str, str]) -> None:
    found = get(f"{deployed['PREFECT_API_URL']}/deployments/name/reproduce/nightly")
    assert [one["schedule"]["cron"] for one in found["schedules"]] == ["0 2 * * *"]
    assert found["parameters"]["store"] == deployed["DSOL_STORE"]
