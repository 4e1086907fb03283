"""A trained model that frames and sounds are given to, from the MLflow registry or from a folder of train_stage_two."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsol_core.types import CheckpointError, Prediction
from tasks.adapters import registry
from tasks.adapters.clip_facts import UNKNOWN, clip_facts
from tasks.adapters.fingerprints import sha256
from tasks.adapters.names import given_names
from tasks.adapters.store import RECORD, Artifact
from tasks.adapters.tracking_store import TrackingError, database, tracking_uri

Floats = NDArray[np.float32]
Said = tuple[Floats, Floats, Floats | None]  # maps [N, K, h, w], sounding [N, K], agnostic [N, h, w]


@dataclass(frozen=True)
class Model:
    """What localises, wherever it came from.

    Attributes:
        entries: names of the K entries.
        side: pixels of the square frames it wants.
        sample_rate_hz: of the sound it wants.
        predict: frames uint8 [N, side, side, 3], waveforms float32 [N, S] -> maps [N, K, h, w], sounding [N, K].
        clip_seconds: length of a clip's sound, as in training.
        windows: how many clips of sound it takes: 3 (a frame's own between its neighbours) or 1.
        square: how a picture becomes a square, as in training: "resize" stretches it, "crop" takes its middle.
        identity: of its files: equal ones give equal maps.
        predict_all: as `predict`, and where anything sounds, whatever it is: [N, h, w], None of a model that does not
            tell it.
        predict_log_mels: as `predict_all`, of the log-mels [N, T, M] that DSOL's authors publish in place of sound;
            None where the model has another front end or is asked through the registry.
    """

    entries: tuple[str, ...]
    side: int
    sample_rate_hz: int
    predict: Callable[[NDArray[np.uint8], Floats], tuple[Floats, Floats]]
    clip_seconds: float = 1.0
    windows: int = 1
    square: str = "resize"
    identity: str = ""
    predict_all: Callable[[Any, Any], Said] | None = None
    predict_log_mels: Callable[[Any, Any], Said] | None = None

    @property
    def heard_seconds(self) -> float:
        """Length of the sound around a frame."""
        return self.windows * self.clip_seconds


def load(model: str | Path, store: Path) -> Model:
    """Load a registered model, or the folder of a trained one.

    Raises:
        CheckpointError: the folder is not one of train_stage_two, or its dictionary is gone.
        TrackingError: MLflow has no such model.
    """
    if str(model).startswith("models:/"):
        uri = tracking_uri(store)
        if uri.startswith("sqlite:///") and not database(uri).is_file():
            raise TrackingError(
                f"there is no MLflow database {database(uri)}, so no {model}; give the --store whose run "
                "registered it, or set MLFLOW_TRACKING_URI"
            )
        served = registry.load_model(uri, str(model))
        known = {**UNKNOWN, "windows": 1, **served.metadata.metadata}

        def all_of(frames: NDArray[np.uint8], waveforms: Floats) -> Said:
            said = served.predict({"frame": frames, "waveform": waveforms})
            return said["maps"], said["sounding"], said.get("agnostic")

        return Model(
            entries=tuple(known["entries"]),
            side=known["side"],
            sample_rate_hz=known["sample_rate_hz"],
            predict=_two(all_of),
            clip_seconds=known["clip_seconds"],
            windows=known["windows"],
            square=known["square"],
            identity=f"{served.metadata.run_id} {served.metadata.model_uuid}",
            predict_all=all_of,
        )
    from dsol_core.audio import paper_audio
    from dsol_core.localizer import Localizer

    folder = Path(model)
    dictionary = _dictionary(folder)
    names = given_names(Artifact("build_dictionary", dictionary.parent, dictionary.parent.name))
    record = json.loads((folder / RECORD).read_text()) if (folder / RECORD).is_file() else {}
    cut = clip_facts(Artifact("train_stage_two", folder.resolve(), "", record=record))
    here = Localizer.load(_existing(folder / "model.safetensors"), dictionary, names, cut["clip_seconds"])

    def localized(frames: NDArray[np.uint8], waveforms: Floats) -> Said:
        return _stacked(here.localize(frames, waveforms))

    def of_log_mels(frames: NDArray[np.uint8], log_mels: Floats) -> Said:
        return _stacked(here.localize_log_mels(frames, log_mels))

    return Model(
        entries=here.entries,
        side=here.side,
        sample_rate_hz=here.sample_rate_hz,
        predict=_two(localized),
        clip_seconds=cut["clip_seconds"],
        windows=here.windows,
        square=cut["square"],
        identity=f"{sha256(folder / 'model.safetensors')} {sha256(dictionary)}",
        predict_all=localized,
        predict_log_mels=of_log_mels if here.audio == paper_audio() else None,
    )


def _two(predict_all: Callable[[Any, Any], Said]) -> Callable[[NDArray[np.uint8], Floats], tuple[Floats, Floats]]:
    return lambda frames, waveforms: predict_all(frames, waveforms)[:2]


def _stacked(said: list[Prediction]) -> Said:
    maps, sounding = np.stack([one.maps for one in said]), np.stack([one.sounding for one in said])
    return maps, sounding, np.stack([one.agnostic for one in said])


def _existing(path: Path) -> Path:
    if not path.is_file():
        expected = "a folder of train_stage_two (STORE/train_stage_two/FINGERPRINT) or models:/dsol@champion"
        raise CheckpointError(f"there is no {path}; expected {expected}")
    return path


def _dictionary(folder: Path) -> Path:
    """Return the dictionary beside a model, or the one that its record names in the same store."""
    beside = folder / "dictionary.safetensors"
    if beside.is_file():
        return beside
    record = json.loads(_existing(folder / "artifact.json").read_text())
    parent = next((one for one in record["parents"].values() if one["step"] == "build_dictionary"), None)
    if parent is None:
        raise CheckpointError(f"{folder} is a {record['step']}, without a dictionary; expected a train_stage_two")
    return _existing(folder.parent.parent / "build_dictionary" / parent["fingerprint"] / "dictionary.safetensors")
