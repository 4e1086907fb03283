"""A real Ray on this machine: ordered tasks with backpressure, training, failure, resume."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsol_core.config import Compute
from dsol_core.types import DataError
from tasks.adapters import cluster, trainer
from tasks.adapters.trainer import TrainWorker

ON_RAY = [pytest.mark.cluster]
HERE = Compute(workers=0)


def square(value: int) -> int:
    if value < 0:
        raise DataError(f"{value} is negative")
    return value * value


def count_epochs(config: dict[str, Any], worker: TrainWorker) -> None:
    """Add 1 an epoch; die once where the config says so."""
    with worker.resume() as last:
        total = json.loads((last / "total.json").read_text()) if last else 0
    trace = Path(config["trace"])
    for epoch in range(total, config["epochs"]):
        total += 1
        if worker.rank == 0:
            with trace.open("a") as file:
                file.write(f"{epoch}\n")
        fuse = Path(config["trace"] + ".fuse")
        if epoch == config.get("die_at") and fuse.exists() and worker.rank == 0:
            fuse.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

        def save(folder: Path, total: int = total) -> None:
            (folder / "total.json").write_text(json.dumps(total))

        worker.report(epoch, {"total": total}, save)


def refuse(config: dict[str, Any], worker: TrainWorker) -> None:
    """Fail as a step does that was given wrong data."""
    with Path(config["trace"]).open("a") as file:
        file.write(f"{worker.rank}\n")
    raise DataError("batch is 7; give a batch of 8")


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Compute]:
    yield Compute(workers=1)
    cluster.stop()


def test_tasks_in_process_come_in_order_and_raise() -> None:
    assert list(cluster.map_tasks(square, [3, 1, 2], compute=HERE)) == [9, 1, 4]
    with pytest.raises(DataError, match="-1 is negative"):
        list(cluster.map_tasks(square, [-1], compute=HERE))


def test_a_local_fit_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    def fit(epochs: int) -> int:
        config = {"trace": str(tmp_path / "trace"), "epochs": epochs}
        last = trainer.fit(
            count_epochs, config, compute=HERE, name="x", storage=tmp_path / "work", on_message=told.append
        )
        return int(json.loads((last / "total.json").read_text()))

    assert fit(2) == 2
    assert fit(4) == 4
    assert (tmp_path / "trace").read_text().split() == ["0", "1", "2", "3"], "no epoch is trained twice"
    assert [one["epoch"] for one in told if "epoch" in one] == [0, 1, 2, 3]


def test_a_message_that_is_read_while_it_is_written_arrives_whole(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    path = tmp_path / "messages.jsonl"
    with trainer._Messages(path, told.append), path.open("a") as file:
        for part in ('{"note"', ': {"a": 1}}\n{"epoch"', ": 2}\n"):
            file.write(part)
            file.flush()
            time.sleep(0.5)  # longer than it waits before it looks again
    assert told == [{"note": {"a": 1}}, {"epoch": 2}]


@pytest.mark.parametrize(
    ("nodes", "workers", "gpu", "threads"),
    [
        ([{"CPU": 4.0}, {"CPU": 4.0}], 1, False, 4),
        ([{"CPU": 4.0}, {"CPU": 4.0}], 2, False, 4),
        ([{"CPU": 4.0}, {"CPU": 4.0}], 3, False, 2),
        ([{"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 2.0}], 4, False, 1),
        ([{"memory": 1.0}, {"CPU": 8.0}], 2, False, 4),  # a head node that is to compute nothing
        ([{"CPU": 2.0}, {"CPU": 16.0, "GPU": 4.0}], 4, True, 4),
        ([{"CPU": 64.0, "GPU": 8.0}], 1, True, 64),
        ([{"CPU": 0.5}, {"CPU": 0.5}], 1, False, 1),
    ],
)
def test_workers_have_the_cores_of_the_node_that_they_may_be_put_on(
    nodes: list[dict[str, float]], workers: int, gpu: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mock: nodes of these sizes are not there."""
    import ray

    dead = {"Alive": False, "Resources": {"CPU": 1.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [dead, *({"Alive": True, "Resources": one} for one in nodes)])
    assert cluster.threads_each(workers, gpu) == threads


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_at_the_address_is_said_at_once(address: str) -> None:
    with pytest.raises(cluster.ClusterError, match="no Ray cluster answers at"):
        list(cluster.map_tasks(square, [1], compute=Compute(address=address)))


def test_a_token_is_sent_to_a_cluster_that_answers_and_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("0" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(cluster.ClusterError):
        cluster.start(Compute(address="127.0.0.1:1"))
    assert "RAY_AUTH_MODE" not in os.environ, "a Ray of this process' own would ask for a token that nobody sends"
    cluster._use_token("127.0.0.1:1")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    cluster._use_token(None)
    assert "RAY_AUTH_MODE" not in os.environ
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    cluster._use_token(None)
    assert os.environ["RAY_AUTH_MODE"] == "token", "what the user set stays"


def test_taken_away_nodes_are_watched_for_on_clusters_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
    monkeypatch.setenv(name, "")  # so that it is as it was when the test ends
    monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(cluster, "_set_here", {})
    monkeypatch.setattr(cluster, "_init", lambda *_: None)
    monkeypatch.setattr(cluster, "_check_address", lambda *_: None)
    monkeypatch.setattr(cluster, "resources", dict)
    for address, value in ((None, "0"), ("127.0.0.1:1", None), (None, "0")):
        cluster.start(Compute(address=address))
        assert os.environ.get(name) == value
    monkeypatch.setenv(name, "1")
    for address in (None, "127.0.0.1:1"):
        cluster.start(Compute(address=address))
        assert os.environ[name] == "1", "what the user set stays"


@pytest.mark.parametrize(("failures", "starts"), [(1, True), (2, False)])
def test_a_busy_machine_gets_a_second_try(monkeypatch: pytest.MonkeyPatch, failures: int, starts: bool) -> None:
    """A mock: a machine cannot be made just busy enough."""
    import ray

    tries: list[dict[str, Any]] = []

    def init(**where: Any) -> None:
        tries.append(where)
        if len(tries) <= failures:
            raise Exception("The current node timed out during startup. This could happen because")

    monkeypatch.setattr(ray, "init", init)
    if starts:
        cluster._init({"num_cpus": 1}, None)
        assert len(tries) == 2
    else:
        with pytest.raises(cluster.ClusterError, match=r"two tries of 30 s.*--address"):
            cluster._init({"num_cpus": 1}, None)


class TestOnRay:
    pytestmark = ON_RAY

    def test_tasks_keep_their_order_and_bounded_flight(self, ray_here: Compute) -> None:
        drawn: list[int] = []

        def items() -> Iterator[int]:
            for value in range(40):
                drawn.append(value)
                yield value

        results = cluster.map_tasks(square, items(), compute=ray_here, in_flight=3)
        assert next(results) == 0
        assert len(drawn) <= 4, "items are drawn only as results are taken"
        assert list(results) == [value * value for value in range(1, 40)]

    def test_the_tasks_own_error_comes_back(self, ray_here: Compute) -> None:
        with pytest.raises(DataError, match="-5 is negative"):
            list(cluster.map_tasks(square, [1, -5], compute=ray_here))

    def test_tasks_take_their_share_of_a_gpu(self, ray_here: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
        cluster.start(ray_here)
        import ray

        asked, real = [], ray.remote

        def noted(**options: Any) -> Any:
            asked.append((options.pop("num_gpus", 0), options.pop("max_calls", 0)))
            return real(**options)

        monkeypatch.setattr(ray, "remote", noted)
        monkeypatch.setattr(cluster, "resources", lambda: {"CPU": 2.0, "GPU": 1.0})
        for gpus in (0.0, 0.25):
            assert list(cluster.map_tasks(square, [2, 3], compute=ray_here, gpus=gpus)) == [4, 9]
        assert asked == [(0, 0), (0.25, cluster._CALLS)], "a process for several: it loads a network"

    def test_a_gpu_that_is_not_there_is_refused(self, ray_here: Compute) -> None:
        cluster.start(ray_here)
        if cluster.resources().get("GPU"):
            pytest.skip("there is one")
        with pytest.raises(cluster.ClusterError, match="the cluster has none; leave out --gpu"):
            next(cluster.map_tasks(square, [1], compute=ray_here, gpus=0.5))  # Ray would wait for ever

    def test_more_workers_than_cores_are_refused(self, ray_here: Compute, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"999 workers asked for, the cluster has \d+ CPU cores"):
            trainer.fit(
                count_epochs, {}, compute=Compute(workers=999), name="x", storage=tmp_path, on_message=lambda m: None
            )

    def test_a_killed_worker_is_restarted_from_the_last_checkpoint(self, ray_here: Compute, tmp_path: Path) -> None:
        trace = tmp_path / "trace"
        Path(f"{trace}.fuse").touch()
        told: list[dict[str, Any]] = []
        config = {"trace": str(trace), "epochs": 4, "die_at": 2}
        last = trainer.fit(
            count_epochs, config, compute=ray_here, name="killed", storage=tmp_path / "work", on_message=told.append
        )
        assert json.loads((last / "total.json").read_text()) == 4
        assert trace.read_text().split() == ["0", "1", "2", "2", "3"], "only the epoch that died is trained again"

    def test_an_error_of_the_users_is_not_retried(self, ray_here: Compute, tmp_path: Path) -> None:
        config = {"trace": str(tmp_path / "trace")}
        with pytest.raises(DataError, match=r"^batch is 7; give a batch of 8$"):
            trainer.fit(
                refuse, config, compute=ray_here, name="refused", storage=tmp_path, on_message=lambda message: None
            )
        assert (tmp_path / "trace").read_text() == "0\n", "one try"
