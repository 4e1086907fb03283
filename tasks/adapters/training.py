"""The epochs of a training on one worker: resume, train, checkpoint, report. Used by both stages."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from dsol_core.clustering import TrainingData
from dsol_core.types import AVBatch
from tasks.adapters import tables
from tasks.adapters.steps import StepOutput
from tasks.adapters.store import Artifact
from tasks.adapters.trainer import TrainWorker

MODEL, STATE = "model.safetensors", "state.pt"


class State(Protocol):
    """What both stages' states have in common."""

    epoch: int
    history: list[dict[str, float]]

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers, strings, lists and dicts."""
        ...

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        ...


class Watched:
    """Training data that tell how far the training is while batches are drawn from them."""

    def __init__(self, data: TrainingData, worker: TrainWorker, epochs: int, batches: int) -> None:
        self._data, self._worker, self._epochs, self._batches = data, worker, epochs, max(1, batches)
        self._trained = 0

    def train(self, epoch: int, part: int) -> Iterator[AVBatch]:
        """Yield the batches of one pass."""
        for done, batch in enumerate(self._data.train(epoch, part)):
            share = min(1.0, done / self._batches)
            self._worker.progress(epoch + share, self._epochs, f"epoch {epoch + 1}, pass {part + 1}")
            yield batch
        self._trained = epoch + 1

    def sequential(self) -> Iterator[AVBatch]:
        """Yield each row once."""
        for done, batch in enumerate(self._data.sequential()):
            share = min(1.0, done / self._batches)
            self._worker.progress(self._trained, self._epochs, f"clips described: {share:.0%}")
            yield batch


def run_epochs(
    state: State,
    epochs: int,
    worker: TrainWorker,
    train_epoch: Callable[[], dict[str, float]],
    save_model: Callable[[Path], None],
) -> None:
    """Train until `epochs` are done, from the last checkpoint where there is one.

    Args:
        state: untrained; continues from the checkpoint.
        epochs: in all; with 0 the untrained state is saved.
        worker: gives the last checkpoint and takes the next ones.
        train_epoch: trains one epoch of `state` and returns its figures.
        save_model: writes the weights to a file.
    """
    with worker.resume() as last:
        if last:
            state.load_state_dict(torch.load(last / STATE, weights_only=True, map_location="cpu"))
            worker.tell({"note": {"resumed_at_epoch": state.epoch}})

    def save(folder: Path) -> None:
        torch.save(state.state_dict(), folder / STATE)
        save_model(folder / MODEL)
        tables.write_history(folder / "history.parquet", _numbered(state.history))

    if epochs == 0 and not last:
        worker.report(0, {}, save)
    while state.epoch < epochs:
        figures = train_epoch()
        worker.report(state.epoch - 1, figures, save)


def _numbered(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{**row, "epoch": epoch} for epoch, row in enumerate(history)]


def adopt(out: StepOutput, last: Path) -> None:
    """Copy what a training left in its last checkpoint into the step's artifact and record its last figures."""
    for name in (MODEL, "history.parquet"):
        shutil.copy(last / name, out.folder / name)
    rows = list(tables.read(out.folder / "history.parquet"))
    end = max((row["epoch"] for row in rows), default=0)
    out.metrics({f"last/{row['name']}": row["value"] for row in rows if row["epoch"] == end})


def count(out: StepOutput, sources: Sequence[Artifact], damaged: int, samples: int) -> None:
    """Record how many samples a training could use, and what was lost on the way to it.

    Args:
        out: of the step.
        sources: shards that it read; those of a frozen trunk's features know what they lost of the frames.
        damaged: samples of these that could not be read.
        samples: samples that they should hold.
    """
    dropped = Counter({"damaged in training": damaged} if damaged else {})
    for source in sources:
        if source.step == "trunk_features":
            dropped.update(source.record.get("rows", {}).get("dropped", {}))
    lost = sum(dropped.values())
    out.rows(read=samples + lost - damaged, written=samples - damaged, dropped=dict(dropped))


def listen(out: StepOutput) -> Callable[[dict[str, Any]], None]:
    """Return a listener that passes a training's messages on to the step's progress, notes and MLflow."""

    def hear(message: dict[str, Any]) -> None:
        if "note" in message:
            out.note(**message["note"])
        elif "figures" in message:
            out.epoch(message["epoch"], message["figures"])
        else:
            out.progress(message["done"], message["total"], message["text"])

    return hear
