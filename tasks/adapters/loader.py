"""Batches for training from shards: the same global batches for any number of workers.

Every worker reads the same samples in the same order and cuts the same global batches; it decodes the rows of its own
stripe only (and the sounds that these are mixed with). All random draws are made for the whole global batch by a
generator seeded with (seed, epoch, part, step), and every row is computed by itself, so that the rows of a batch are
equal bit for bit whichever worker and thread makes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dsol_core import audio
from dsol_core.config import RATE_HZ
from dsol_core.types import AVBatch, DataError, LocalWorker, Worker
from tasks.adapters import inputs, shards
from tasks.adapters.inputs import Recipe
from tasks.adapters.pool import Pool, ahead
from tasks.adapters.shards import Content, Sample, ShardReader
from tasks.adapters.staging import staged

BUFFER: dict[Content, int] = {"frames": 500, "features": 2000}  # undecoded samples held to shuffle, at most ...
BUFFER_BYTES = 192 * 2**20  # ... and what they may weigh
AHEAD = 3  # batches made before they are asked for
READ_AHEAD = 2  # batches read before they are made


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
        if recipe.audio.sample_rate_hz != RATE_HZ:
            raise DataError(f"audio.sample_rate_hz is {recipe.audio.sample_rate_hz}; shards hold {RATE_HZ} Hz")
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

    def _made(self, make: Callable[[Pool], Iterator[AVBatch]]) -> Iterator[AVBatch]:
        with Pool(self._threads) as pool:
            yield from ahead(make(pool), AHEAD)

    def _sequential(self, pool: Pool) -> Iterator[AVBatch]:
        read = _cut(self.reader.ordered(), self.recipe.batch, partial=True)
        with closing(ahead(read, READ_AHEAD)) as batches:
            for rows in batches:
                mine = self._stripe(len(rows))
                if mine:
                    yield inputs.evaluation_batch(
                        [rows[i] for i in mine], self.recipe, self.reader.content, rows, pool.stack
                    )

    def _train(self, epoch: int, part: int, pool: Pool) -> Iterator[AVBatch]:
        recipe, step = self.recipe, 0
        with closing(ahead(self._drawn(epoch, part), READ_AHEAD)) as read:
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

    def _batch(self, rows: Sequence[Sample], draws: _Draws, others: Sequence[Sample] | None, pool: Pool) -> AVBatch:
        recipe, content = self.recipe, self.reader.content
        mine = self._stripe(len(rows))
        needed = sorted({*mine, *draws.partners[mine.start : mine.stop].flatten().tolist()})
        views = [(rows[i], recipe, content, draws.view[i], int(draws.augment[i])) for i in mine]
        if others is not None:
            views += [(others[i], recipe, content, draws.other_view[i], int(draws.other_augment[i])) for i in mine]
        seen = pool.stack(inputs.picture, views)
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

    def _sounds(self, rows: Sequence[tuple[Sample, float]], pool: Pool) -> Tensor:
        """Return the log-mels [N, 1, T, M] of rows: all at once on a GPU, else each by itself (see the module)."""
        recipe, content, device = self.recipe, self.reader.content, self.worker.device
        if content == "frames" and torch.device(device).type == "cuda":
            return inputs.sounds_together(rows, recipe.audio, device)
        return pool.stack(inputs.sound, [(row, recipe, content, second) for row, second in rows])

    def _mixed(
        self, rows: Sequence[Sample], sounds: dict[int, Tensor], mine: range, draws: _Draws, pool: Pool
    ) -> Tensor | None:
        if not self.recipe.mixtures:
            return None
        if self.recipe.mixing == "waveform":
            pairs = [
                (i, int(j), float(g)) for i in mine for j, g in zip(draws.partners[i], draws.gains[i], strict=True)
            ]
            parts = [((rows[i], draws.second[i]), (rows[j], draws.second[j]), gain) for i, j, gain in pairs]
            return pool.stack(inputs.mixture, [(*part, self.recipe.audio) for part in parts])
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
