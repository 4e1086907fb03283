"""The code that MLflow stores with a registered model and executes when the model is loaded.

It needs mlflow, `dsol_core` (stored beside it) and the libraries of its requirements, neither `tasks` nor `flows`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class SoundingObjects(PythonModel):
    """Localise what sounds in frames, by class.

    Attributes:
        localizer: the `dsol_core.localizer.Localizer` behind it, once loaded.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights and the dictionary; both are safetensors and execute nothing."""
        from dsol_core.localizer import Localizer

        files = context.artifacts
        seconds = context.model_config["clip_seconds"]
        self.localizer = Localizer.load(Path(files["model"]), Path(files["dictionary"]), clip_seconds=seconds)

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Predict on frames and their sound.

        Args:
            context: of MLflow.
            model_input: {"frame": uint8 [N, H, W, 3] RGB, "waveform": float32 [N, S] mono in [-1, 1] at 16 kHz}; any
                H, W and S. The sound is that around the frame; best are as many seconds as the model's metadata
                tell ("windows" times "clip_seconds").
            params: none are used.

        Returns:
            {"maps": float32 [N, K, h, w] in [0, 1], dark where an entry is silent; "sounding": float32 [N, K]
            probabilities; "agnostic": float32 [N, h, w] in [0, 1], where anything sounds, whatever it is; "entries":
            the K names of the entries}.
        """
        said = self.localizer.localize(model_input["frame"], model_input["waveform"])
        return {
            "maps": np.stack([one.maps for one in said]).astype(np.float32),
            "sounding": np.stack([one.sounding for one in said]).astype(np.float32),
            "agnostic": np.stack([one.agnostic for one in said]).astype(np.float32),
            "entries": np.array(self.localizer.entries),
        }


set_model(SoundingObjects())
