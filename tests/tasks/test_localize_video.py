"""Localising over videos: the table, the drawn video, and what is refused."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dsol_core.types import CheckpointError, DataError, UsageError
from tasks.adapters import localizers, media, tables
from tasks.adapters.localizers import Model
from tasks.adapters.names import give_names
from tasks.adapters.tracking_store import TrackingError
from tasks.localize_video import SoundWindows, localize, places
from tests.tasks.trained import ENTRIES, Trained, publish

Film = Callable[..., Path]
PICTURE = "testsrc2=s={size}:r={rate}:d={seconds}"
LOSSY = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return publish(tmp_path_factory.mktemp("store"))


def brightness(frames: np.ndarray, waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A model of two entries: "left" is at the left and sounds when it is loud, "right" never sounds."""
    maps = np.zeros((len(frames), 2, 4, 4), np.float32)
    maps[:, 0, 1:3, 0:2] = 0.6
    maps[:, 1, 3, 3] = 0.3
    loud = np.abs(waveforms).max(1) > 0.01
    return maps, np.stack([np.where(loud, 0.9, 0.1), np.full(len(frames), 0.2)], 1).astype(np.float32)


@pytest.fixture
def simple(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localizers, "load", lambda *_: Model(("left", "right"), 16, 16000, brightness))


def rows(folder: Path) -> list[dict]:
    return list(tables.read(folder / "localizations.parquet"))


def test_a_trained_folder_gives_a_video_and_one_row_a_frame_and_class(
    trained: Trained, film: Film, tmp_path: Path
) -> None:
    video = film("wide.mp4", seconds=3, rate="12", size="96x54", picture=PICTURE, video=LOSSY)
    told: list[tuple[float, float]] = []
    done = localize(
        video, trained.stage_two.folder, tmp_path / "out", threshold=0.4, on_progress=lambda *pair: told.append(pair)
    )
    found = rows(tmp_path / "out")
    assert (done["frames"], done["rows"], tuple(done["entries"])) == (12, 36, ENTRIES)
    assert [(row["time"], row["class"]) for row in found] == [(n / 4, name) for n in range(12) for name in ENTRIES]
    for row in found:
        assert row["sounding"] == (row["probability"] >= 0.4)
        assert (row["x"] is None) == (not row["sounding"])
        assert 0 <= row["peak"] <= 1 and 0 <= row["peak_x"] <= 1 and 0 <= row["peak_y"] <= 1
    drawn = media.probe(Path(done["video"]), check="decode")
    assert (drawn.width, drawn.height, drawn.frames) == (96, 54, 36) and not drawn.problems
    assert drawn.frames_per_second == pytest.approx(12)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["localizations.parquet", "wide.mp4"]
    assert told[-1][0] <= told[-1][1] and [a for a, _ in told] == sorted(a for a, _ in told)


def test_the_sound_is_the_original_one(simple: None, film: Film, tmp_path: Path) -> None:
    video = film("tone.mp4", seconds=3, size="64x64", picture=PICTURE, video=LOSSY)
    done = localize(video, "models:/any@champion", tmp_path)
    before, after = (np.concatenate(list(media.stream_audio(Path(path)))) for path in (video, done["video"]))
    np.testing.assert_array_equal(before, after)


def test_box_and_peak_are_where_the_map_is_and_the_colour_is_drawn_there(
    simple: None, film: Film, tmp_path: Path
) -> None:
    video = film("flat.mp4", seconds=2, size="160x80", picture="color=gray:s={size}:r={rate}:d={seconds}", video=LOSSY)
    localize(video, "models:/any@champion", tmp_path)
    left, right = rows(tmp_path)[:2]
    assert (left["class"], left["sounding"], right["sounding"]) == ("left", True, False)
    assert left["x"] == 0 and left["x"] + left["width"] == pytest.approx(0.5, abs=0.05)
    assert left["y"] == pytest.approx(0.25, abs=0.05) and left["height"] == pytest.approx(0.5, abs=0.1)
    assert left["peak"] == pytest.approx(0.6) and left["peak_x"] < 0.5 and 0.25 < left["peak_y"] < 0.75
    assert right["width"] is None and right["peak"] == pytest.approx(0.3) and right["peak_x"] > 0.85
    _, frame = next(media.stream_frames(tmp_path / "flat.mp4", 1))
    red, _, blue = frame[44, 30].astype(int)
    assert red > blue + 60
    assert np.ptp(frame[60, 150].astype(int)) < 12


def test_nothing_sounds_in_silence_and_a_class_stops_with_its_sound(simple: None, film: Film, tmp_path: Path) -> None:
    half = "aevalsrc='if(lt(t,2),0.5*sin(2764*t),0)':s=16000:d={seconds}"
    video = film("half.mp4", seconds=6, size="32x32", picture=PICTURE, video=LOSSY, sound=half)
    done = localize(video, "models:/any@champion", tmp_path, frames_per_second=2)
    left = [row for row in rows(tmp_path) if row["class"] == "left"]
    assert [row["sounding"] for row in left] == [time < 2.5 for time in (row["time"] for row in left)]
    assert left[-1]["probability"] == 0 and left[-1]["peak"] == 0
    assert done["sounding"] == {"left": 2.5}


def test_a_video_that_ends_early_is_localised_as_far_as_it_goes(
    simple: None, film: Film, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = film("whole.mp4", seconds=8, rate="10", picture=PICTURE, video=(*LOSSY, "-movflags", "+faststart"))
    short = tmp_path / "short.mp4"
    short.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = localize(short, "model", tmp_path / "out", frames_per_second=2.0)
    assert done["problems"] and done["problems"][0].startswith("truncated: 8.0 s announced")
    assert 4 <= done["frames"] <= 12, "of 16 announced ones"
    assert "short.mp4: truncated" in caplog.text and media.probe(Path(done["video"])).duration < 7
    half_silent = film("half.mp4", seconds=8, rate="10", picture=PICTURE, video=LOSSY, sound="sine=440:d=4:r=16000")
    for number, video in enumerate((whole, half_silent)):
        done = localize(video, "model", tmp_path / f"all{number}", frames_per_second=2.0)
        assert done["problems"] == [] and done["frames"] == 16, "a sound that ends early is silent from there on"
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--out .* is a file; give a folder"):
        localize(whole, "model", tmp_path / "file")


@pytest.mark.parametrize(
    ("rate", "wanted", "size", "frames", "drawn"),
    [("9", 4, "33x31", 12, 27), ("30000/1001", 10, "64x36", 30, 90), ("1", 4, "32x32", 12, 12)],
)
def test_any_rate_and_size(
    rate: str, wanted: float, size: str, frames: int, drawn: int, simple: None, film: Film, tmp_path: Path
) -> None:
    more = ("-pix_fmt", "yuv444p")
    video = film(f"r{frames}{drawn}.mp4", rate=rate, seconds=3, size=size, more=more)
    done = localize(video, "models:/any@champion", tmp_path, frames_per_second=wanted)
    info = media.probe(Path(done["video"]), check="packets")
    assert abs(done["frames"] - frames) <= 1 and abs(info.frames - drawn) <= 1
    width, height = (int(part) for part in size.split("x"))
    assert (info.width, info.height) == (width + width % 2, height + height % 2)


def test_names_that_the_user_gave_are_used(trained: Trained, film: Film, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(trained.store, store)
    give_names(store / "build_dictionary" / trained.dictionary.fingerprint, {"cluster-01": "recorder"})
    assert localizers.load(store / "train_stage_two" / trained.stage_two.fingerprint, store).entries == (
        "cello",
        "recorder",
        "cello 2",
    )


def test_a_dictionary_beside_the_model_is_used(trained: Trained, tmp_path: Path) -> None:
    shutil.copy(trained.stage_two.file("model.safetensors"), tmp_path)
    with pytest.raises(CheckpointError, match=r"artifact\.json"):
        localizers.load(tmp_path, tmp_path)
    shutil.copy(trained.dictionary.file("dictionary.safetensors"), tmp_path)
    assert localizers.load(tmp_path, tmp_path).entries == ENTRIES


def test_what_cannot_be_localised_is_refused_and_leaves_nothing(
    simple: None, film: Film, tmp_path: Path, trained: Trained
) -> None:
    out = tmp_path / "out"
    silent = film("dumb.mp4", sound="", picture=PICTURE, video=LOSSY)
    with pytest.raises(DataError, match=r"dumb\.mp4 has no sound"):
        localize(silent, "models:/any@champion", out)
    heard = film("radio.mp4", picture="")
    with pytest.raises(DataError, match="has no picture"):
        localize(heard, "models:/any@champion", out)
    with pytest.raises(UsageError, match="there is no file"):
        localize(tmp_path / "none.mp4", "models:/any@champion", out)
    good = film("good-one.mp4", picture=PICTURE, video=LOSSY)
    for rate, threshold in ((0.0, 0.5), (100.0, 0.5), (4.0, 1.0)):
        with pytest.raises(UsageError, match="expected 0 <"):
            localize(good, "models:/any@champion", out, frames_per_second=rate, threshold=threshold)
    assert not out.exists()
    with pytest.raises(UsageError, match="is the video itself"):
        localize(good, "models:/any@champion", good.parent)


def test_another_videos_table_is_not_overwritten(simple: None, film: Film, tmp_path: Path) -> None:
    first = film("first.mp4", seconds=2, size="32x32", picture=PICTURE, video=LOSSY)
    second = film("second.mp4", seconds=3, size="32x32", picture=PICTURE, video=LOSSY)
    localize(first, "models:/any@champion", tmp_path / "out")
    kept = (tmp_path / "out" / "localizations.parquet").read_bytes()
    with pytest.raises(UsageError, match="another folder to --out"):
        localize(second, "models:/any@champion", tmp_path / "out")
    assert (tmp_path / "out" / "localizations.parquet").read_bytes() == kept
    assert localize(first, "models:/any@champion", tmp_path / "out", frames_per_second=2)["frames"] == 4
    (tmp_path / "elsewhere").mkdir()
    same = shutil.copy(second, tmp_path / "elsewhere" / "first.mkv")
    with pytest.raises(UsageError, match=rf"holds the localizations\.parquet of {first}"):
        localize(Path(same), "models:/any@champion", tmp_path / "out")
    (tmp_path / "out" / "first.mp4").unlink()  # as a kill leaves it between the two files
    localize(first, "models:/any@champion", tmp_path / "out", frames_per_second=2)
    assert (tmp_path / "out" / "first.mp4").is_file()


def test_a_video_of_the_users_that_has_the_results_name_is_left_alone(simple: None, film: Film, tmp_path: Path) -> None:
    video = film("talk.mkv", seconds=2, size="32x32", picture=PICTURE, video=LOSSY)
    mine = tmp_path / "talk.mp4"
    mine.write_bytes(b"another cut of the same talk")
    with pytest.raises(UsageError, match=r"talk\.mp4 exists and is none of dsol's results"):
        localize(video, "models:/any@champion", tmp_path)
    assert mine.read_bytes() == b"another cut of the same talk"


def test_a_store_without_mlflow_is_not_given_one(tmp_path: Path, film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    video = film("asked.mp4", seconds=2, size="32x32", picture=PICTURE, video=LOSSY)
    with pytest.raises(TrackingError, match=r"there is no MLflow database .*mlflow\.db.* --store"):
        localize(video, "models:/dsol@champion", tmp_path / "out", store=tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_tells_how_its_clips_were_cut(tmp_path: Path, trained: Trained) -> None:
    made = publish(tmp_path / "known", clips={"duration": 2.0, "square": "crop"})
    known = localizers.load(made.stage_two.folder, tmp_path)
    assert (known.clip_seconds, known.windows, known.square) == (2.0, 3, "crop")
    unknown = localizers.load(trained.stage_two.folder, tmp_path)
    assert (unknown.clip_seconds, unknown.square) == (1.0, "resize")


def test_sound_and_pictures_are_cut_as_in_training(film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    pictures: list[np.ndarray] = []

    def noting(frames: np.ndarray, waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append((frames.shape[1:], waveforms.shape[1:]))
        pictures.extend(frames)
        return brightness(frames, waveforms)

    model = Model(("left", "right"), 16, 16000, noting, clip_seconds=2.0, square="crop")
    monkeypatch.setattr(localizers, "load", lambda *_: model)
    # Black but for the middle square, which is white.
    middle = "color=black:s=64x32:r=4:d={seconds},drawbox=x=16:y=0:w=32:h=32:color=white:t=fill"
    video = film("middle.mp4", seconds=4, size="64x32", picture=middle, video=LOSSY)
    done = localize(video, "models:/any@champion", tmp_path, frames_per_second=1)
    assert set(asked) == {((16, 16, 3), (32000,))}
    assert min(picture[:, 1:-1].min() for picture in pictures) > 200
    row = next(row for row in rows(tmp_path) if row["sounding"])
    # The map's left half is the frame's second quarter.
    assert row["x"] == pytest.approx(0.25, abs=0.02) and row["width"] == pytest.approx(0.25, abs=0.05)
    assert 0.25 < row["peak_x"] < 0.5
    drawn = next(frame for _, frame in media.stream_frames(Path(done["video"]), 1.0))
    assert drawn[:, 50:].max() < 40 and drawn[:, :14].max() < 40  # outside the square nothing is drawn
    assert np.ptp(drawn[8:24, 20:30].astype(int), axis=2).max() > 40


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(CheckpointError, match="a folder of train_stage_two"):
        localizers.load(tmp_path / "nowhere", tmp_path)
    with pytest.raises(CheckpointError, match="without a dictionary"):
        localizers.load(trained.metrics.folder, tmp_path)


def test_a_failure_in_the_middle_leaves_no_files(film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def breaks(frames: np.ndarray, waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if next(calls):
            raise RuntimeError("out of memory")
        return brightness(frames, waveforms)

    monkeypatch.setattr(localizers, "load", lambda *_: Model(("left", "right"), 16, 16000, breaks))
    video = film("long.mp4", seconds=6, size="32x32", picture=PICTURE, video=LOSSY)
    with pytest.raises(RuntimeError):
        localize(video, "models:/any@champion", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def pieces(samples: int, size: int) -> Iterator[np.ndarray]:
    sound = np.arange(samples, dtype=np.int16)
    for start in range(0, samples, size):
        yield sound[start : start + size]


@pytest.mark.parametrize("size", [7, 100, 1000])
def test_windows_are_centred_and_stay_inside_the_sound(size: int) -> None:
    windows = SoundWindows(pieces(1000, size), 100)  # ten seconds of 100 samples
    for time, first in ((0.0, 0), (0.25, 0), (0.5, 0), (1.0, 50), (5.0, 450), (9.4, 890), (9.5, 900), (10.0, 900)):
        np.testing.assert_array_equal(windows.around(time) * 32768, np.arange(first, first + 100))
    beyond = windows.around(10.2) * 32768
    np.testing.assert_array_equal(beyond[:30], np.arange(970, 1000))
    assert beyond[30:].max() == 0 and windows.around(12.0).max() == 0


def test_windows_keep_no_more_than_they_need() -> None:
    windows = SoundWindows(pieces(30000, 100), 100)
    kept = [windows.between_neighbours(time) is not None and len(windows._kept) for time in np.arange(0, 250, 0.25)]
    assert max(kept) <= 600


def test_a_sound_shorter_than_a_window_is_padded() -> None:
    window = SoundWindows(pieces(60, 60), 100).around(0.0) * 32768
    np.testing.assert_array_equal(window, [*range(60), *[0] * 40])
    window = SoundWindows(pieces(60, 60), 100).between_neighbours(0.0) * 32768
    np.testing.assert_array_equal(window, [*range(60), *[0] * 40] * 3)


@pytest.mark.parametrize("size", [7, 1000])
def test_windows_lie_between_their_neighbours_as_in_shards(size: int) -> None:
    windows = SoundWindows(pieces(1000, size), 100)
    for time, starts in (
        (0.0, (100, 0, 200)),  # there is nothing before: the next two
        (0.5, (100, 0, 200)),
        (1.2, (170, 70, 270)),
        (5.0, (350, 450, 550)),
        (8.5, (700, 800, 900)),
        (9.2, (770, 870, 670)),
        (10.0, (800, 900, 700)),
    ):
        own = windows.around(time)
        sound = windows.between_neighbours(time).reshape(3, 100)
        np.testing.assert_array_equal(sound[1], own)
        np.testing.assert_array_equal(sound[:, 0] * 32768, starts)


def test_a_silent_clip_is_dark_among_sounds(film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = set()

    def noting(frames: np.ndarray, waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lengths.add(waveforms.shape[1])
        return brightness(frames, waveforms)

    monkeypatch.setattr(localizers, "load", lambda *_: Model(("left", "right"), 16, 16000, noting, windows=3))
    gap = "sine=frequency=400:sample_rate=16000:duration=6,volume=0:enable='between(t,2,4)'"
    video = film("gap.mp4", seconds=6, size="32x32", picture=PICTURE, sound=gap, video=LOSSY)
    localize(video, "models:/any@champion", tmp_path, frames_per_second=2)
    sounding = {row["time"]: False for row in rows(tmp_path)}
    for row in rows(tmp_path):
        sounding[row["time"]] |= row["sounding"]
    assert lengths == {48000}
    dark = {time for time, on in sounding.items() if not on}
    assert {3.0} <= dark <= {2.5, 3.0, 3.5}  # the codec smears the edges


def test_a_box_encloses_the_blob_of_the_peak_alone() -> None:
    maps = np.zeros((1, 8, 8), np.float32)
    maps[0, 1:3, 1:3], maps[0, 5:7, 5:7] = 0.8, 1.0
    (place,) = places(maps, np.array([True]))
    assert place["x"] > 0.5 and place["y"] > 0.5 and place["peak_x"] > 0.5
    assert place["x"] + place["width"] == pytest.approx(7 / 8, abs=0.07)


def test_memory_does_not_grow_with_length(simple: None, film: Film, ffmpeg_run: Callable, tmp_path: Path) -> None:
    short = film("short.mp4", rate="2", seconds=10, size="64x64", picture=PICTURE, video=LOSSY)
    long = short.parent / "ten-minutes.mp4"
    ffmpeg_run("-stream_loop", "59", "-i", short, "-c", "copy", long)
    localize(short, "models:/any@champion", tmp_path / "a", frames_per_second=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = localize(long, "models:/any@champion", tmp_path / "b", frames_per_second=2)
    assert done["frames"] >= 1190
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024
