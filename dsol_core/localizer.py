"""A trained model as one object: frames and waveforms in, maps and names of what sounds out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dsol_core import audio, checkpoint, image, stage_two
from dsol_core.config import AudioConfig
from dsol_core.dictionary import ObjectDictionary
from dsol_core.stage_two_net import StageTwoNet
from dsol_core.types import AVBatch, CheckpointError, Prediction, ShapeError


class Localizer:
    """Stage two with its dictionary, ready to be asked.

    Attributes:
        dictionary: its K entries.
        entries: their names, each once.
        side: pixels of the square picture that the network sees; frames of any size are scaled to it.
        sample_rate_hz: of the sound it expects.
        windows: how many clips of sound it hears: 3 (a frame's own between its neighbours) or 1.
    """

    def __init__(self, net: StageTwoNet, dictionary: ObjectDictionary, clip_seconds: float | None = None) -> None:
        self._net, self.dictionary = net.eval(), dictionary
        self._config = net.stage_one.config
        self.entries = entry_names(dictionary)
        self._image = image.scaled(self._config.image, net.config.test_scale, self._config.backbone.visual_stride)
        self.side = self._image.side
        self.sample_rate_hz = self._config.audio.sample_rate_hz
        self.windows = net.config.windows
        self._clip = None if clip_seconds is None else round(clip_seconds * self.sample_rate_hz)

    @classmethod
    def load(
        cls, model: Path, dictionary: Path, names: Mapping[str, str] | None = None, clip_seconds: float | None = None
    ) -> Localizer:
        """Load the files of stage two and of its dictionary, on the CPU.

        Args:
            model: of stage two.
            dictionary: it was trained with.
            names: new names of some entries, by the name that they have in the dictionary.
            clip_seconds: length of the clips it was trained on; None: every sound is heard as one.

        Raises:
            CheckpointError: a file is missing or damaged, is no stage two, or the two do not belong together.
        """
        net, entries = checkpoint.load(model).network(), checkpoint.load_dictionary(dictionary)
        if not isinstance(net, StageTwoNet):
            raise CheckpointError(f"{model} holds a {type(net).__name__}; expected stage two (train_stage_two)")
        if tuple(net.dictionary.shape) != np.shape(entries.centers):
            raise CheckpointError(
                f"{dictionary} has entries {np.shape(entries.centers)}, {model} was trained with "
                f"{tuple(net.dictionary.shape)}; take both from the same run"
            )
        return cls(net, entries.named(names or {}), clip_seconds)

    def localize(self, frames: Any, waveforms: Any) -> list[Prediction]:
        """Say what sounds and where in each frame.

        Args:
            frames: uint8 [N, H, W, 3] RGB array.
            waveforms: [N, S] array, mono in [-1, 1] at `sample_rate_hz`: the sound around each frame. Of three clips or
                more a model that hears three hears those in the middle one by one, and how likely an entry is heard is
                their mean (`clip_windows.between_neighbours` makes such a sound). Any other sound is heard as one.

        Raises:
            ShapeError: the arrays do not have these shapes.
        """
        sounds = np.asarray(waveforms, np.float32)
        if sounds.ndim != 2:
            raise ShapeError(f"waveforms have shape {list(sounds.shape)}; expected [N, S], one a frame")
        if not len(sounds) and not len(frames):
            return []
        windows = self._windows(sounds)
        mels = audio.log_mel(torch.tensor(windows).flatten(0, 1), self._config.audio)
        return self._localize(frames, mels.view(*windows.shape[:2], *mels.shape[2:]))

    def _windows(self, sounds: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cut sounds [N, S] into clips, [N, A, S'], the middle one first; a short one stays as it is."""
        if self.windows == 1 or self._clip is None or sounds.shape[1] < 3 * self._clip:
            return sounds[:, None]
        first = (sounds.shape[1] - 3 * self._clip) // 2
        clips = sounds[:, first : first + 3 * self._clip].reshape(len(sounds), 3, self._clip)
        return np.ascontiguousarray(clips[:, [1, 0, 2]])

    @property
    def audio(self) -> AudioConfig:
        """The front end that log-mels must come from."""
        return self._config.audio

    def localize_log_mels(self, frames: Any, log_mels: Any) -> list[Prediction]:
        """Say the same of frames whose sound comes as a log-mel spectrogram.

        Args:
            frames: uint8 [N, H, W, 3] RGB array.
            log_mels: float [N, T, M] as `audio.log_mel` makes them with `self.audio`, not standardised.

        Raises:
            ShapeError: the arrays do not have these shapes.
        """
        sounds = torch.as_tensor(log_mels, dtype=torch.float32)
        if sounds.ndim != 3:
            raise ShapeError(f"log_mels have shape {list(sounds.shape)}; expected [N, T, {self.audio.mel_bins}]")
        return self._localize(frames, sounds[:, None])

    def _localize(self, frames: Any, sounds: torch.Tensor) -> list[Prediction]:
        """Say it of frames whose sounds are log-mels [N, A, T, M] of A windows each."""
        pictures = np.asarray(frames)
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise ShapeError(f"frames are {pictures.dtype} {list(pictures.shape)}; expected uint8 [N, H, W, 3]")
        if len(sounds) != len(pictures) or sounds.shape[3] != self.audio.mel_bins:
            raise ShapeError(
                f"the frames' sounds make log-mels {list(sounds.shape)}; expected [{len(pictures)}, A, T, "
                f"{self.audio.mel_bins}], one a frame"
            )
        keys = tuple(str(number) for number in range(len(pictures)))
        if not keys:
            return []
        batch = AVBatch(
            keys=keys,
            video_ids=keys,
            all_keys=keys,
            all_video_ids=keys,
            visual=image.to_input(torch.tensor(pictures).permute(0, 3, 1, 2), self._image),
            log_mels=sounds,
        )
        return stage_two.predict(self._net, batch, self.dictionary)


def entry_names(dictionary: ObjectDictionary) -> tuple[str, ...]:
    """Return a different name for each entry: the one it was given, else its category, else "cluster-00" and so on.

    Entries of one name are numbered from the second on: "cello", "cello 2".
    """
    categories = dictionary.categories or dictionary.names
    wanted = [
        category if name == f"cluster-{number:02d}" else name
        for number, (name, category) in enumerate(zip(dictionary.names, categories, strict=True))
    ]
    names: list[str] = []
    for name in wanted:
        same, number = name, 1
        while same in names:
            number += 1
            same = f"{name} {number}"
        names.append(same)
    return tuple(names)
