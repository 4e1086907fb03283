"""Batches for training from shards: the same global batches for any number of workers.

Every worker reads the same samples in the same order and cuts the same global batches; it decodes the rows of its own
stripe only (and the sounds that these are mixed with). All random draws are made for the whole global batch by a
generator seeded with (seed, epoch, part, step), and every row is computed by itself, so that the rows of a batch are
equal bit for bit whichever worker and thread makes them.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from dsol_core import audio, image
from dsol_core.config import AudioConfig, ImageConfig, StageOneConfig, StageTwoConfig
from dsol_core.types import AVBatch, DataError, LocalWorker, Worker
from tasks.adapters import shards
from tasks.adapters.shards import Content, Sample, ShardReader
from tasks.adapters.staging import staged

T = TypeVar("T")

BUFFER: dict[Content, int] = {"frames": 500, "features": 2000}  # undecoded samples held to shuffle, at most ...
BUFFER_BYTES = 192 * 2**20  # ... and what they may weigh
AHEAD = 3  # batches made before they are asked for
READ_AHEAD = 2  # batches read before they are made


@dataclass(frozen=True)
class Recipe:
    """How batches are drawn.

    Attributes:
        audio: front end of the sounds.
        image: front end of the pictures.
        batch: rows of a global batch.
        seed: of every random draw.
        neighbour_seconds: pair a picture with any second around it, not only its own (in training).
        mixtures: two-source mixtures a row (in training).
        mixture_gain: level difference of a mixture: uniform in +- this, natural-log units of power.
        other: add a picture of another video to each row (in training).
        mixing: what is mixed; waveforms are in shards of frames only.
        windows: how many of a row's seconds are heard where it is evaluated, its own first.
    """

    audio: AudioConfig
    image: ImageConfig
    batch: int
    seed: int = 0
    neighbour_seconds: bool = False
    mixtures: int = 0
    mixture_gain: float = 1.0
    other: bool = False
    mixing: Literal["log_mel", "waveform"] = "log_mel"
    windows: int = 1

    @classmethod
    def stage_one(cls, config: StageOneConfig, seed: int) -> Recipe:
        """Return what stage one asks for."""
        return cls(
            config.audio,
            config.image,
            config.batch,
            seed,
            config.neighbour_seconds,
            config.mixtures,
            config.mixture_gain,
            config.matching == "binary" and config.negatives == "set",
        )

    @classmethod
    def stage_two(cls, config: StageTwoConfig, first: StageOneConfig, seed: int) -> Recipe:
        """Return what stage two asks for, with the front ends of its stage one."""
        other = config.matching == "binary" and config.negatives == "set"
        return cls(first.audio, first.image, config.batch, seed, other=other)

    def hearing(self, config: StageTwoConfig) -> Recipe:
        """Return what the practice in hearing asks for: solo clips, any second of them, and mixtures."""
        return replace(
            self,
            neighbour_seconds=True,
            mixtures=config.hearing_mixtures,
            mixture_gain=config.hearing_gain,
            other=False,
            mixing=config.hearing_mixing,
        )


class Loader:
    """The batches of some subsets, for one worker; satisfies `dsol_core.clustering.TrainingData`.

    Attributes:
        reader: which counts the samples lost to damage.
    """

    def __init__(
        self,
        folder: Path,
        subsets: Iterable[str],
        recipe: Recipe,
        worker: Worker | None = None,
        *,
        split: str = "train",
        max_damaged: float = shards.MAX_DAMAGED,
        threads: int | None = None,
    ) -> None:
        """Open shards of frames or of trunk features.

        Args:
            folder: with `shards.json`.
            subsets: such as ("grid", "multi").
            recipe: how batches are drawn.
            worker: whose rows are made; default the only one.
            split: train, val or test.
            max_damaged: share of damaged samples above which reading stops.
            threads: that decode rows side by side; default torch's number of threads.

        Raises:
            DataError: the batch cannot be shared evenly by the workers, or the shards do not fit the recipe.
        """
        self.recipe, self.worker = recipe, worker or LocalWorker()
        world = self.worker.world_size
        if recipe.batch % world:
            raise DataError(f"batch is {recipe.batch} for {world} workers; expected a multiple of their number")
        if recipe.audio.sample_rate_hz != shards.RATE_HZ:
            raise DataError(f"audio.sample_rate_hz is {recipe.audio.sample_rate_hz}; shards hold {shards.RATE_HZ} Hz")
        self._names = tuple(subsets)
        self.reader = ShardReader(folder, self._names, split, max_damaged=max_damaged)
        if recipe.mixing == "waveform" and self.reader.content != "frames":
            raise DataError(f"{folder} holds {self.reader.content}; to mix waveforms give shards of frames")
        self._folder, self._split, self._max_damaged = folder, split, max_damaged
        self._threads = threads or torch.get_num_threads()

    @property
    def steps(self) -> int:
        """Batches of one training pass over undamaged shards."""
        return self.reader.expected // self.recipe.batch

    def train(self, epoch: int, part: int = 0) -> Iterator[AVBatch]:
        """Yield one shuffled, augmented pass; the last, incomplete global batch is left out.

        Raises:
            DataError: there are fewer samples than a batch has rows, or too many damaged ones.
        """
        device = self.worker.device
        return self._made(lambda pool: staged(self._train(epoch, part, pool), device))

    def sequential(self) -> Iterator[AVBatch]:
        """Yield each sample once over all workers, in order, not augmented; the last batches may be smaller."""
        return self._made(lambda pool: staged(self._sequential(pool), self.worker.device))

    def _made(self, make: Callable[[_Pool], Iterator[AVBatch]]) -> Iterator[AVBatch]:
        with _Pool(self._threads) as pool:
            yield from _ahead(make(pool), AHEAD)

    def _sequential(self, pool: _Pool) -> Iterator[AVBatch]:
        read = _cut(self.reader.ordered(), self.recipe.batch, partial=True)
        with closing(_ahead(read, READ_AHEAD)) as batches:
            for rows in batches:
                mine = self._stripe(len(rows))
                if mine:
                    yield evaluation_batch([rows[i] for i in mine], self.recipe, self.reader.content, rows, pool.stack)

    def _train(self, epoch: int, part: int, pool: _Pool) -> Iterator[AVBatch]:
        recipe, step = self.recipe, 0
        with closing(_ahead(self._drawn(epoch, part), READ_AHEAD)) as read:
            for rows, others in read:
                draws = _Draws(np.random.default_rng([recipe.seed, epoch, part, step]), len(rows), recipe)
                yield self._batch(rows, draws, others, pool)
                step += 1
        if step == 0:
            raise DataError(
                f"{self.reader.expected} samples ({self.reader.damaged} damaged) of {'+'.join(self._names)} "
                f"{self._split} in {self._folder} do not fill a batch of {recipe.batch}; give more data or a smaller "
                "batch"
            )

    def _drawn(self, epoch: int, part: int) -> Iterator[tuple[list[Sample], list[Sample] | None]]:
        """Yield the undecoded rows of each global batch, and those that give the other pictures."""
        recipe, seed = self.recipe, self.recipe.seed
        others = _Others(self._open(), _seed(seed, epoch, part, 1)) if recipe.other else None
        order = self.reader.shuffled(_seed(seed, epoch, part, 0), buffered(self.reader))
        for rows in _cut(order, recipe.batch, partial=False):
            yield rows, others.match(rows) if others else None

    def _open(self) -> ShardReader:
        return ShardReader(self._folder, self._names, self._split, max_damaged=self._max_damaged)

    def _stripe(self, count: int) -> range:
        """Return the positions of this worker's rows in a global batch: one contiguous part, sizes even within 1."""
        base, rest = divmod(count, self.worker.world_size)
        rank = self.worker.rank
        start = rank * base + min(rank, rest)
        return range(start, start + base + (rank < rest))

    def _batch(self, rows: Sequence[Sample], draws: _Draws, others: Sequence[Sample] | None, pool: _Pool) -> AVBatch:
        recipe, content = self.recipe, self.reader.content
        mine = self._stripe(len(rows))
        needed = sorted({*mine, *draws.partners[mine.start : mine.stop].flatten().tolist()})
        views = [(rows[i], recipe, content, draws.view[i], int(draws.augment[i])) for i in mine]
        if others is not None:
            views += [(others[i], recipe, content, draws.other_view[i], int(draws.other_augment[i])) for i in mine]
        seen = pool.stack(_picture, views)
        sounds = dict(zip(needed, self._sounds([(rows[i], draws.second[i]) for i in needed], pool), strict=True))
        return AVBatch(
            keys=tuple(rows[i].key for i in mine),
            video_ids=tuple(rows[i].video for i in mine),
            all_keys=tuple(row.key for row in rows),
            all_video_ids=tuple(row.video for row in rows),
            visual=seen[: len(mine)],
            log_mels=torch.stack([sounds[i] for i in mine]),
            features=content == "features",
            other=None if others is None else seen[len(mine) :],
            mixed=self._mixed(rows, sounds, mine, draws, pool),
            all_mixed_partners=tuple(int(i) for i in draws.partners.flatten()),
        )

    def _sounds(self, rows: Sequence[tuple[Sample, float]], pool: _Pool) -> Tensor:
        """Return the log-mels [N, 1, T, M] of rows: all at once on a GPU, else each by itself (see the module)."""
        recipe, content, device = self.recipe, self.reader.content, self.worker.device
        if content == "frames" and torch.device(device).type == "cuda":
            return _sounds_together(rows, recipe.audio, device)
        return pool.stack(_sound, [(row, recipe, content, second) for row, second in rows])

    def _mixed(
        self, rows: Sequence[Sample], sounds: dict[int, Tensor], mine: range, draws: _Draws, pool: _Pool
    ) -> Tensor | None:
        if not self.recipe.mixtures:
            return None
        if self.recipe.mixing == "waveform":
            pairs = [
                (i, int(j), float(g)) for i in mine for j, g in zip(draws.partners[i], draws.gains[i], strict=True)
            ]
            parts = [((rows[i], draws.second[i]), (rows[j], draws.second[j]), gain) for i, j, gain in pairs]
            return pool.stack(_mixture, [(*part, self.recipe.audio) for part in parts])
        first = torch.stack([sounds[i] for i in mine for _ in range(self.recipe.mixtures)])
        second = torch.stack([sounds[int(j)] for i in mine for j in draws.partners[i]])
        gains = torch.from_numpy(draws.gains[mine.start : mine.stop].flatten()).float().to(first.device)
        return audio.mix_log_mels(first, second, gains, self.recipe.audio)


class _Draws:
    """The random choices for a whole global batch of B rows and n mixtures a row."""

    def __init__(self, generator: np.random.Generator, count: int, recipe: Recipe) -> None:
        self.view, self.other_view, self.second = generator.random((3, count))  # in [0, 1): which of those there are
        self.augment, self.other_augment = generator.integers(2**62, size=(2, count))
        if not recipe.neighbour_seconds:
            self.second = np.zeros(count)
        away = generator.integers(1, max(2, count), size=(count, recipe.mixtures))
        self.partners = (np.arange(count)[:, None] + away) % count
        self.gains = generator.uniform(-recipe.mixture_gain, recipe.mixture_gain, (count, recipe.mixtures))


class _Others:
    """Pictures of other videos, from a second stream that is shuffled by itself and starts again at its end."""

    def __init__(self, reader: ShardReader, seed: int) -> None:
        self._reader, self._seed = reader, seed
        self._stream = self._endless()
        self._refused: deque[Sample] = deque()

    def match(self, rows: Sequence[Sample]) -> list[Sample]:
        """Return for each row a sample that shares no video with it."""
        return [self._one(set(row.meta["video_ids"])) for row in rows]

    def _one(self, videos: set[str]) -> Sample:
        for position, sample in enumerate(self._refused):
            if videos.isdisjoint(sample.meta["video_ids"]):
                del self._refused[position]
                return sample
        for _ in range(2 * self._reader.expected):
            sample = next(self._stream)
            if videos.isdisjoint(sample.meta["video_ids"]):
                return sample
            if len(self._refused) < 64:
                self._refused.append(sample)
        raise DataError(
            f"no picture without video {'+'.join(sorted(videos))} in {self._reader.folder}; negatives from the set "
            'need at least two videos; add videos or set stage_one.negatives to "batch"'
        )

    def _endless(self) -> Iterator[Sample]:
        turn = 0
        while True:
            yield from self._reader.shuffled(_seed(self._seed, turn), buffered(self._reader))
            turn += 1


def buffered(reader: ShardReader) -> int:
    """Return how many samples are held to shuffle: fewer where they are large, so that memory stays bounded."""
    return max(1, min(BUFFER[reader.content], int(BUFFER_BYTES // max(1.0, reader.sample_bytes))))


def evaluation_batch(
    rows: Sequence[Sample],
    recipe: Recipe,
    content: Content,
    all_rows: Sequence[Sample] | None = None,
    stack: Callable[[Callable[..., Tensor], Sequence[tuple[Any, ...]]], Tensor] | None = None,
) -> AVBatch:
    """Make a batch as it is evaluated: the middle frame, no augmentation, `recipe.windows` of sound, its own first.

    A row whose video has no other whole clip has its own again in place of the window that there is not.

    Args:
        rows: samples of shards.
        recipe: its front ends and windows count.
        content: of those shards.
        all_rows: of the global batch that `rows` are a part of; default themselves.
        stack: calls a function with each of many tuples of arguments and stacks the results; default one by one.
    """
    everything = all_rows or rows
    stack = stack or _Pool(1).stack
    return AVBatch(
        keys=tuple(row.key for row in rows),
        video_ids=tuple(row.video for row in rows),
        all_keys=tuple(row.key for row in everything),
        all_video_ids=tuple(row.video for row in everything),
        visual=stack(_picture, [(row, recipe, content, None, 0) for row in rows]),
        log_mels=stack(log_mels, [(row, recipe, content) for row in rows]),
        features=content == "features",
    )


def _picture(
    row: Sample, recipe: Recipe, content: Content, chosen: float | None, seed: int, *, out: Tensor | None = None
) -> Tensor:
    """Return a row's picture, [3, side, side] or [C, h, w]; `chosen` in [0, 1) picks among those it has."""
    if content == "features":
        views = shards.array(row, "views.npy")
        augmented = len(views) - 1
        view = 0 if chosen is None or augmented == 0 else 1 + int(chosen * augmented)
        return _filled(out, views[view])
    into = None if out is None else out[None]
    if chosen is None:
        return image.to_input(shards.picture(row)[None], recipe.image, out=into)[0]
    frame = shards.picture(row, int(chosen * len(shards.pictures(row))))
    front = image.front_of(row.meta["kind"], recipe.image)
    return image.to_input(frame[None], front, augment=torch.Generator().manual_seed(seed), out=into)[0]


def _sound(row: Sample, recipe: Recipe, content: Content, chosen: float, *, out: Tensor | None = None) -> Tensor:
    """Return the log-mel [1, T, M] of one of the seconds that a row has."""
    if content == "features":
        mels = shards.array(row, "mels.npy")
        return _filled(out, mels[int(chosen * len(mels))][None])
    return _filled(out, audio.log_mel(_waveform(row, chosen)[None], recipe.audio)[0].numpy())


def log_mels(row: Sample, recipe: Recipe, content: Content, *, out: Tensor | None = None) -> Tensor:
    """Return the log-mels [A, T, M] of a row's own second and of those around it, `recipe.windows` in all."""
    if content == "features":
        mels = shards.array(row, "mels.npy")
        return _filled(out, mels[np.arange(recipe.windows) % len(mels)])
    waves = shards.waveform(np.stack(shards.windows(row)[: recipe.windows]))
    mels = audio.log_mel(torch.from_numpy(waves), recipe.audio)[:, 0].numpy()
    return _filled(out, mels[np.arange(recipe.windows) % len(mels)])


def _filled(out: Tensor | None, values: np.ndarray) -> Tensor:
    """Return float32 copies of values, in `out` where it is given."""
    if out is None:
        return torch.from_numpy(values.astype(np.float32))
    out.numpy()[...] = values
    return out


def _sounds_together(rows: Sequence[tuple[Sample, float]], config: AudioConfig, device: Any) -> Tensor:
    waves = torch.stack([_waveform(row, second) for row, second in rows])
    return audio.log_mel(waves.to(device), config)


def _mixture(
    first: tuple[Sample, float],
    second: tuple[Sample, float],
    gain: float,
    config: AudioConfig,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Return the log-mel [1, T, M] of two rows' sounds mixed as waveforms; each row with the choice of its second."""
    mixed = audio.mix_waveforms(_waveform(*first)[None], _waveform(*second)[None], torch.tensor([gain]))
    return _filled(out, audio.log_mel(mixed, config)[0].numpy())


def _waveform(row: Sample, chosen: float) -> Tensor:
    """Return the sound [S] of one of the seconds that a row of frames has."""
    windows = shards.windows(row)
    return torch.from_numpy(shards.waveform(windows[int(chosen * len(windows))]))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0])


def _cut(samples: Iterator[Sample], size: int, *, partial: bool) -> Iterator[list[Sample]]:
    rows: list[Sample] = []
    for sample in samples:
        rows.append(sample)
        if len(rows) == size:
            yield rows
            rows = []
    if rows and partial:
        yield rows


class _Pool:
    """Threads that make the rows of a batch side by side; each computes with one thread, so that cores are not shared.

    Decoding a JPEG and torch's operations let other threads run.
    """

    def __init__(self, threads: int) -> None:
        self._threads, self._like = threads, dict[Callable[..., Tensor], Tensor]()
        self._executor = ThreadPoolExecutor(threads, "dsol-rows") if threads > 1 else None
        if self._executor:
            own, together = torch.get_num_threads(), threading.Barrier(threads)

            def alone() -> None:
                torch.set_num_threads(1)  # of this thread from here on, and for a moment of torch's defaults
                together.wait()

            for future in [self._executor.submit(alone) for _ in range(threads)]:
                future.result()
            torch.set_num_threads(own)

    def stack(self, function: Callable[..., Tensor], calls: Sequence[tuple[Any, ...]]) -> Tensor:
        """Return `function(*call, out=row)` for each call, at least one, stacked in their order.

        The row is to be filled; it is None for the first call of a function, whose result tells what rows are like.
        """
        unknown = function not in self._like
        if unknown:
            (self._like[function],) = self._each([lambda: function(*calls[0], out=None)])
        like = self._like[function]
        rows = torch.empty_strided((len(calls), *like.shape), (like.numel(), *like.stride()), dtype=like.dtype)
        if unknown:
            rows[0] = like
        left = iter(range(int(unknown), len(calls)))  # shared: a thread takes the next row when it is through with one

        def work() -> None:
            for number in left:
                function(*calls[number], out=rows[number])

        self._each([work] * self._threads)
        return rows

    def _each(self, functions: Sequence[Callable[[], T]]) -> list[T]:
        if self._executor is None:
            return [function() for function in functions]
        return [future.result() for future in [self._executor.submit(function) for function in functions]]

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor:
            self._executor.shutdown()


def _ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Make items in a thread, `depth` ahead; an error there is raised here, an early end here ends the thread."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    stopped = threading.Event()
    end = object()

    def put(value: Any) -> None:
        while not stopped.is_set():
            try:
                return ready.put(value, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(end)
        except Exception as error:
            put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (value := ready.get()) is not end:
            if isinstance(value, Exception):
                raise value
            yield value
    finally:
        stopped.set()
        thread.join()
