"""The domain: frozen dataclasses that validate themselves, and the errors.

Letters: B batch, P parts of a scene, K dictionary entries, D feature size, H W image pixels, h w map cells,
S audio samples, T spectrogram steps, M mel bins. Times in seconds; audio mono float32 in [-1, 1]; boxes as
fractions of the frame with the origin at the top left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class DsolError(Exception):
    """Anything that dsol reports to its user: the value, what was expected, the remedy."""


class UsageError(DsolError, ValueError):
    """A wrong use of a command or an option: a name, key or combination that does not exist."""


class ShapeError(DsolError, ValueError):
    """Tensors whose shapes do not fit each other."""


class DataError(DsolError, ValueError):
    """Input that cannot be used: media, annotations, shards."""


class CheckpointError(DsolError, ValueError):
    """A checkpoint or dictionary that does not fit what it is used with."""


@dataclass(frozen=True)
class Box:
    """An axis-aligned box, fractions of the frame; `sounding` is False for a visible but silent object."""

    x: float
    y: float
    width: float
    height: float
    category: str | None = None
    sounding: bool = True

    def __post_init__(self) -> None:
        inside = -1e-6 <= self.x and -1e-6 <= self.y and self.x + self.width <= 1 + 1e-6
        if not (inside and self.y + self.height <= 1 + 1e-6 and self.width > 0 and self.height > 0):
            raise DataError(
                f"box x={self.x:g} y={self.y:g} width={self.width:g} height={self.height:g} leaves the frame or is "
                "empty; expected fractions of the frame (x, y, width, height), origin top left; clip it first"
            )


@dataclass(frozen=True)
class Clip:
    """One short window of a video (one second by default), the unit of training and evaluation."""

    id: str
    video_id: str
    start: float
    duration: float
    kind: Literal["solo", "multi"]
    split: Split
    categories: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Scene:
    """A recipe of a cocktail-party scene: four clips tiled 2x2 (row by row), some of which sound."""

    id: str
    clip_ids: tuple[str, ...]
    sounding: tuple[bool, ...]
    gains: tuple[float, ...]
    split: Split

    def __post_init__(self) -> None:
        if not len(self.clip_ids) == len(self.sounding) == len(self.gains) == 4:
            raise DataError(f"scene {self.id} has {len(self.clip_ids)} clips; expected 4 with 4 flags and 4 gains")
        if not any(self.sounding):
            raise DataError(f"scene {self.id} has no sounding clip; expected at least one")


@dataclass(frozen=True)
class AVBatch:
    """One worker's rows of a global batch.

    A global batch of `len(all_keys)` samples is cut into equal stripes, one a worker; `keys` are this worker's rows.
    Losses gather the networks' outputs over all workers and are computed on the global batch, so that training does
    not depend on the number of workers.

    Attributes:
        keys: sample keys of the rows here (B).
        video_ids: their videos (B).
        all_keys: keys of the global batch, in the order in which a gather over the workers puts them.
        all_video_ids: the same for the videos.
        visual: frames [B, 3, H, W], or [B, C, h, w] float16 or float32 trunk features where `features` is set. Frames
            are uint8 as they are loaded and normalised floats once `clustering.move` has put them on a device.
        log_mels: float [B, 1, T, M], as `audio.log_mel` makes them (not standardised). What stage two is asked with may
            be of several windows, [B, A, T, M], a row's own first.
        features: whether `visual` holds the frozen trunk's features instead of frames.
        other: the same as `visual` for a picture of another video, the negatives of paper recipes; None if unused.
        mixed: float [B * n, 1, T, M] mixtures of each row's sound with n other sounds of the batch, row by row
            (row 0's n mixtures first); None if unused.
        all_mixed_partners: for each mixture of the global batch (len(all_keys) * n, in gather order) the position of
            the other source in `all_keys`.
    """

    keys: tuple[str, ...]
    video_ids: tuple[str, ...]
    all_keys: tuple[str, ...]
    all_video_ids: tuple[str, ...]
    visual: Tensor
    log_mels: Tensor
    features: bool = False
    other: Tensor | None = None
    mixed: Tensor | None = None
    all_mixed_partners: tuple[int, ...] = ()


class Worker(Protocol):
    """What a training loop needs to know of the cluster; `LocalWorker` is the single-process one."""

    rank: int
    world_size: int
    device: Any

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate the workers' rows, [B, ...] -> [world_size * B, ...]; differentiable."""
        ...

    def share(self, make: Callable[[], Any]) -> Any:
        """Call `make` on rank 0 only and give every worker its (picklable) result."""
        ...

    def gather_objects(self, value: Any) -> list[Any]:
        """Give every worker the list of all workers' (picklable) values, in rank order."""
        ...

    def wrap(self, module: Any) -> Any:
        """Return the module ready for data-parallel training; its own attributes are then under `.module`."""
        ...


@dataclass
class LocalWorker:
    """The only worker of a run without a cluster."""

    rank: int = 0
    world_size: int = 1
    device: Any = "cpu"

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensor as it is."""
        return tensor

    def share(self, make: Callable[[], Any]) -> Any:
        """Call `make`."""
        return make()

    def gather_objects(self, value: Any) -> list[Any]:
        """Return the value as the only one."""
        return [value]

    def wrap(self, module: Any) -> Any:
        """Return the module as it is."""
        return module


@dataclass(frozen=True)
class Prediction:
    """What the model says about one frame and its sound. Numpy arrays, float32.

    Attributes:
        key: sample key.
        maps: [K, h, w] in [0, 1], one map per dictionary entry, gated by the audio: dark where the entry is silent.
        visual: [K, h, w] in [0, 1], the same without listening: where each entry is seen.
        agnostic: [h, w] in [0, 1], where anything sounds, whatever it is.
        sounding: [K] in [0, 1], probability that the entry sounds.
        heard: [K] in [0, 1], the same of one who only listens: whatever is seen.
    """

    key: str
    maps: Any
    visual: Any
    agnostic: Any
    sounding: Any
    heard: Any


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int
