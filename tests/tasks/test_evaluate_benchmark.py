"""Benchmarks end to end on tiny files: hand-computed scores, coverage, causes, resuming, MLflow, a real Ray cluster."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dsol_core.config import Compute
from dsol_core.protocols import Maps
from dsol_core.types import DataError, UsageError
from tasks import evaluate_benchmark
from tasks.adapters import benchmark_maps, images, localizers, tables
from tasks.adapters.benchmark_maps import mix_sounds, whole_frame
from tasks.adapters.class_names import match_classes, plain
from tasks.adapters.prediction_files import write_predictions
from tasks.adapters.view import View
from tasks.evaluate_benchmark import evaluate
from tests.tasks import benchmark_media
from tests.tasks.benchmark_media import KEYS, write_annotations, write_media
from tests.tasks.conftest import Film
from tests.tasks.trained import ENTRIES, publish

HERE = Compute(workers=0)
LEFT, TOP = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
LEFT[:, :2], TOP[:2] = 1, 1
CAUSES = {"no file": 2, "too short": 1, "cannot be decoded": 1}


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    return write_annotations(tmp_path / "annotations")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory, film: Film) -> Path:
    return write_media(tmp_path_factory.mktemp("media"), film)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localizers, "load", lambda *_: benchmark_media.model())
    monkeypatch.setattr(evaluate_benchmark, "BLOCK", 2)
    evaluate_benchmark._loaded.cache_clear()
    benchmark_media.SAID.clear()


def predictions(path: Path, maps: dict[str, np.ndarray], name: str | None = None) -> Path:
    write_predictions(path, (Maps(key, one[None], (name,), (None,)) for key, one in maps.items()))
    return path


def missing(folder: Path | str) -> list[tuple[str, str]]:
    return [(row["item"], row["cause"]) for row in tables.read(Path(folder) / "missing.parquet")]


def test_a_file_of_maps_is_scored_as_by_hand(annotations: Path, tmp_path: Path) -> None:
    """With half of the frame as mask: left half 1, quarter 1/2, right half 0, all 1/2; two items have no maps."""
    said = {key: LEFT for key in KEYS[:4]} | {KEYS[6]: TOP, "ZZZZZZZZZZZ_000000": TOP}
    path = predictions(tmp_path / "maps.parquet", said)
    done = evaluate("vgg-ss", annotations, predictions=path, out=tmp_path / "out", compute=HERE, track=False)
    for mode in ("reference", "correct"):
        one = done["modes"][mode]
        assert (one["items"], one["scored"], one["partial"]) == (7, 5, True)
        assert one["coverage"] == pytest.approx(5 / 7) and one["missing"] == {"no prediction": 2}
        # IoUs 1, 0.5, 0, 0.5, 1: of the 21 success thresholds they reach all, the first 11, the first.
        assert one["metrics"]["iou@0.5"]["value"] == pytest.approx(4 / 5) and one["metrics"]["iou@0.5"]["n"] == 5
        assert one["metrics"]["auc"]["value"] == pytest.approx((1 + 0.525 + 0.025 + 0.525 + 1) / 5)
        assert one["metrics"]["iou@0.5"]["low"] <= 4 / 5 <= one["metrics"]["iou@0.5"]["high"]
        whole = one["beside"]["whole frame"]["iou@0.5"]
        assert whole["value"] == pytest.approx(4 / 5) and whole["n"] == 5  # the quarter alone fails
        assert one["beside"]["ceiling"]["iou@0.5"]["value"] == 1
    assert done["unknown_items"] == {"count": 1, "first": ["ZZZZZZZZZZZ_000000"]}
    assert missing(done["folder"]) == [
        ("ZZZZZZZZZZZ_000000", "not in the benchmark"),
        (KEYS[4], "no prediction"),
        (KEYS[5], "no prediction"),
    ]
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["modes"] == done["modes"]


def test_full_coverage_is_not_partial_and_order_does_not_matter(annotations: Path, tmp_path: Path) -> None:
    said = {key: LEFT if number % 2 else TOP for number, key in enumerate(KEYS)}
    results = []
    for number, order in enumerate((KEYS, KEYS[::-1])):
        path = predictions(tmp_path / f"{number}.parquet", {key: said[key] for key in order})
        results.append(evaluate("vgg-ss", annotations, predictions=path, store=tmp_path, compute=HERE, track=False))
    first, second = (one["modes"] for one in results)
    assert first == second and first["correct"]["partial"] is False and first["correct"]["coverage"] == 1
    assert results[0]["folder"] != results[1]["folder"]
    assert Path(results[0]["folder"]).parent == tmp_path / "benchmarks"


def test_classes_of_a_file_match_by_name_or_by_map(annotations: Path, tmp_path: Path) -> None:
    """The duet's oracle takes the map of the class: spelt otherwise, given by --map, or missing."""
    rows = (
        Maps(f"{a},{b}", np.stack([np.hstack([LEFT, TOP])] * 2), ("Playing-Cello", "bark"), (0.5, 0.5))
        for a, b in zip(KEYS, [*KEYS[1:], KEYS[0]], strict=True)
    )
    write_predictions(tmp_path / "maps.parquet", rows)
    done = evaluate(
        "vggsound-duet",
        annotations,
        predictions=tmp_path / "maps.parquet",
        names={"bark": "dog barking"},
        out=tmp_path / "out",
        compute=HERE,
        track=False,
    )
    assert done["classes"] == {
        "matched": {"Playing-Cello": "playing_cello", "bark": "dog_barking"},
        "unknown_to_the_system": ["people_whistling"],
        "unused": [],
    }
    assert done["modes"]["reference"]["counts"]["sources without a map"] == 2
    with pytest.raises(UsageError, match="'cat' is unknown; expected one of dog_barking, people_whistling"):
        evaluate("vggsound-duet", annotations, predictions=tmp_path / "maps.parquet", names={"bark": "cat"})


def test_a_model_on_media_of_many_layouts(known: None, annotations: Path, media: Path, tmp_path: Path) -> None:
    told: list[tuple[float, float]] = []
    done = evaluate(
        "vgg-ss",
        annotations,
        data=media,
        model="models:/any@champion",
        store=tmp_path,
        compute=HERE,
        track=False,
        on_progress=lambda *pair: told.append(pair),
    )
    one = done["modes"]["correct"]
    assert (one["items"], one["scored"], one["partial"], one["missing"]) == (7, 3, True, CAUSES)
    assert dict(missing(done["folder"])) == {
        "CCCCCCCCCCC_000100": "cannot be decoded",
        "EEEEEEEEEEE_000005": "no file",
        "FFFFFFFFFFF_000005": "no file",
        "GGGGGGGGGGG_000020": "too short",
    }
    # The higher half of the maximum of both maps is the left half: IoU 1, 0.5 and 0.5.
    assert one["metrics"]["iou@0.5"]["value"] == 1 and one["metrics"]["iou@0.5"]["n"] == 3
    assert one["metrics"]["auc"]["value"] == pytest.approx((1 + 0.525 + 0.525) / 3)
    assert done["agnostic_map"] == "maximum of the class maps"
    assert done["heard_seconds"] == 1.0 and {shape for _, (_, shape) in benchmark_media.SAID} == {16000}
    assert {shape[1:] for shape, _ in benchmark_media.SAID} == {(16, 16, 3)}
    assert sum(shape[0] for shape, _ in benchmark_media.SAID) == 3  # both modes share the maps
    assert told[-1] == (14, 14) or told[-1][0] <= told[-1][1]
    assert done["classes"]["unused"] == ["cello"] and done["classes"]["matched"] == {"dog_barking": "dog barking"}


def test_neighbours_are_heard_as_far_as_the_protocol_lets(
    known: None, annotations: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VGG-SS gives three seconds: three clips of a second, or one clip of two."""
    where = {"data": media, "model": "models:/any@champion", "compute": HERE, "track": False}
    for seconds, samples, heard in ((1.0, 48000, 3.0), (2.0, 32000, 2.0)):
        model = replace(benchmark_media.model(f"{seconds}"), clip_seconds=seconds, windows=3)
        monkeypatch.setattr(localizers, "load", lambda *_, model=model: model)
        evaluate_benchmark._loaded.cache_clear()
        benchmark_media.SAID.clear()
        done = evaluate("vgg-ss", annotations, store=tmp_path / f"{seconds}", **where)
        assert done["heard_seconds"] == heard and {shape for _, (_, shape) in benchmark_media.SAID} == {samples}
    assert benchmark_maps.heard_seconds(0.5, model) == 0.5 and benchmark_maps.heard_seconds(None, model) == 6.0


def test_a_second_run_computes_only_what_is_gone(
    known: None, annotations: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_benchmark, "BLOCK", 1)
    here = {"data": media, "model": "models:/any@champion", "store": tmp_path, "compute": HERE, "track": False}
    first = evaluate("vgg-ss", annotations, **here)
    parts = sorted(Path(first["folder"]).glob("parts/*/*.parquet"))
    assert len(parts) == 5 and len(benchmark_media.SAID) == 3
    kept = [part for part in parts if "AAAA" in part.with_suffix(".json").read_text()]
    stamps = {part: part.stat().st_mtime_ns for part in kept}
    for part in set(parts) - set(kept):
        part.unlink()
    parts[0].parent.joinpath("0123.parquet").write_bytes(b"half of a part")
    second = evaluate("vgg-ss", annotations, **here)
    assert len(benchmark_media.SAID) == 5  # two pictures of two parts
    assert {part: part.stat().st_mtime_ns for part in kept} == stamps
    assert (second["folder"], second["modes"]) == (first["folder"], first["modes"])
    third = evaluate("vgg-ss", annotations, **{**here, "modes": ["correct"]})
    assert len(benchmark_media.SAID) == 5 and third["modes"]["correct"] == first["modes"]["correct"]


def test_another_model_or_other_media_are_another_folder(
    known: None, annotations: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Film
) -> None:
    here = {"model": "models:/any@champion", "store": tmp_path, "compute": HERE, "track": False}
    first = evaluate("vgg-ss", annotations, data=media, **here)["folder"]
    monkeypatch.setattr(localizers, "load", lambda *_: benchmark_media.model("two"))
    assert evaluate("vgg-ss", annotations, data=media, **here)["folder"] != first
    monkeypatch.setattr(localizers, "load", lambda *_: benchmark_media.model())
    more = write_media(tmp_path / "more", film)
    (more / "EEEEEEEEEEE_000005.mp4").write_bytes((media / "test" / "BBBBBBBBBBB_0_10000.mp4").read_bytes())
    done = evaluate("vgg-ss", annotations, data=more, **here)
    assert done["folder"] != first and done["modes"]["correct"]["scored"] == 4


def test_one_folder_for_two_models_and_changed_media_mixes_no_maps(
    known: None, annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Film
) -> None:
    here = {"model": "models:/any@champion", "out": tmp_path / "out", "compute": HERE, "track": False}
    media = write_media(tmp_path / "media", film)
    evaluate("vgg-ss", annotations, data=media, **here)
    evaluate("vgg-ss", annotations, data=media, **here)
    assert sum(shape[0] for shape, _ in benchmark_media.SAID) == 3  # the second time they are there
    changed = media / "test" / "BBBBBBBBBBB_0_10000.mp4"
    os.utime(changed, (1, 1))
    evaluate("vgg-ss", annotations, data=media, **here)
    assert sum(shape[0] for shape, _ in benchmark_media.SAID) == 4
    monkeypatch.setattr(localizers, "load", lambda *_: benchmark_media.model("two"))
    evaluate_benchmark._loaded.cache_clear()
    evaluate("vgg-ss", annotations, data=media, **here)
    assert sum(shape[0] for shape, _ in benchmark_media.SAID) == 7


def test_maps_of_older_code_are_not_mixed_with_newer_ones(
    known: None, annotations: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"data": media, "model": "models:/any@champion", "store": tmp_path, "compute": HERE, "track": False}
    first = evaluate("vgg-ss", annotations, **here)["folder"]
    digest_of = evaluate_benchmark.code_digest
    for module, same in (("tasks.adapters.localizers", False), ("tasks.evaluate", True)):
        changed = {module: "changed"}
        monkeypatch.setattr(evaluate_benchmark, "code_digest", lambda name, c=changed: c.get(name) or digest_of(name))
        assert (evaluate("vgg-ss", annotations, **here)["folder"] == first) is same


def test_a_pair_is_heard_together_and_mapped_side_by_side(
    known: None, annotations: Path, media: Path, tmp_path: Path
) -> None:
    write_annotations(annotations, KEYS[:2])
    done = evaluate(
        "vggsound-duet",
        annotations,
        data=media,
        model="models:/any@champion",
        names={"cello": "playing cello"},
        store=tmp_path,
        compute=HERE,
        track=False,
    )
    assert [shape[0] for shape, _ in benchmark_media.SAID] == [4, 4]  # two pairs, once a mix: sum and average
    folders = sorted(path.name for path in Path(done["folder"]).glob("parts/*"))
    assert folders == ["average-frame", "sum-frame"]
    row = next(tables.read(next(Path(done["folder"]).glob("parts/sum-frame/*.parquet"))))
    assert (row["class"], row["height"], row["width"]) == ("cello", 4, 8)
    np.testing.assert_allclose(np.reshape(row["map"], (4, 8))[0], [0.8, 0.8, 0, 0] * 2, atol=1e-6)
    correct = done["modes"]["correct"]
    assert correct["scored"] == 2 and correct["metrics"]["ciou@0.3 (oracle)"]["n"] == 4


def test_a_trained_folder(annotations: Path, media: Path, tmp_path: Path, film: Film) -> None:
    evaluate_benchmark._loaded.cache_clear()
    trained = publish(tmp_path / "store")
    done = evaluate(
        "vgg-ss",
        annotations,
        data=media,
        model=str(trained.stage_two.folder),
        names={"cello": "playing cello"},
        store=tmp_path / "store",
        compute=HERE,
        track=False,
    )
    assert done["modes"]["correct"]["scored"] == 3 and tuple(done["entries"]) == ENTRIES
    assert done["agnostic_map"] == "the model's own"
    assert done["classes"]["matched"] == {"cello": "playing cello", "cello 2": "playing cello"}


def test_a_class_aware_protocol_needs_a_class(
    known: None, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "AAAAAAAAAAA_0_1000/frame_001/00030.jpg"
    box = {"box": [0, 0, 50, 100], "normbox": [0, 0, 0.5, 1], "category_id": 11}
    (tmp_path / "duettest.json").write_text(json.dumps({key: {"bbox": [box], "wdith": 100, "height": 100}}))
    (tmp_path / "media").mkdir()
    source = media / "playing cello" / "AAAAAAAAAAA_000030.mp4"
    (tmp_path / "media" / "AAAAAAAAAAA_0_1000.mp4").write_bytes(source.read_bytes())
    here = {"data": tmp_path / "media", "model": "models:/a@b", "store": tmp_path, "compute": HERE, "track": False}
    made = localizers.Model(("bark", "meow"), 16, 16000, benchmark_media.left_half)
    with monkeypatch.context() as patch:
        patch.setattr(localizers, "load", lambda *_: made)
        with pytest.raises(UsageError, match=r"none of the system's \(bark, meow\) is one of its .* --map class"):
            evaluate("music-duet", tmp_path, **here)
    path = predictions(tmp_path / "maps.parquet", {key: LEFT}, "bark")
    with pytest.raises(UsageError, match="compares maps of classes"):
        evaluate("music-duet", tmp_path, predictions=path)
    done = evaluate("music-duet", tmp_path, **{**here, "names": {"cello": "violin"}})
    assert done["modes"]["correct"]["metrics"]["ciou@0.3"]["value"] == 1
    assert done["classes"]["unknown_to_the_system"] == []


def music_synthetic(root: Path, shape: tuple[int, ...] = (201, 64)) -> Path:
    """Write the three folders of MUSIC-Synthetic with two items, a violin at the left and a cello at the right."""
    for number in range(2):
        for folder in ("audio", "video", "box"):
            (root / "test1" / folder).mkdir(parents=True, exist_ok=True)
        with (root / "test1" / "audio" / f"{number}.pkl").open("wb") as file:
            pickle.dump(np.zeros(shape, np.float32), file)
        frame = np.full((16, 16, 3), 90, np.uint8)
        (root / "test1" / "video" / f"{number}.jpg").write_bytes(images.encode_jpeg(frame, 90))
        np.save(root / "test1" / "box" / f"{number}.npy", np.array([[0, 0, 0.5, 1, 11], [0.5, 0, 0.5, 1, 1]]))
    return root


def test_music_synthetic_is_heard_as_the_spectrograms_it_comes_with(
    known: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def hear(frames: np.ndarray, log_mels: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
        heard.append(log_mels.shape)
        return *benchmark_media.left_half(frames, log_mels), None

    root = music_synthetic(tmp_path / "data")
    here = {"data": root, "model": "models:/a@b", "store": tmp_path, "compute": HERE, "track": False}
    here["names"] = {"cello": "violin", "dog_barking": "cello"}
    with pytest.raises(DataError, match="spectrogram only 2"):
        evaluate("music-synthetic", root, **here)
    made = replace(benchmark_media.model("hears spectrograms"), predict_log_mels=hear)
    monkeypatch.setattr(localizers, "load", lambda *_: made)
    evaluate_benchmark._loaded.cache_clear()
    done = evaluate("music-synthetic", root, **here)["modes"]["correct"]
    assert heard == [(2, 201, 64)] and (done["scored"], done["partial"]) == (2, False)
    # The violin's map is its half, IoU 1; the cello's too, which is the wrong half: 0. Their mean is 0.5.
    assert done["metrics"]["ciou@0.3"]["value"] == 1 and done["metrics"]["auc"]["value"] == pytest.approx(0.525)


def test_only_a_model_with_the_authors_front_end_takes_their_spectrograms(tmp_path: Path) -> None:
    ours = localizers.load(str(publish(tmp_path / "ours").stage_two.folder), tmp_path)
    assert ours.predict_log_mels is None and ours.predict_all is not None
    frames, waves = np.zeros((2, 32, 32, 3), np.uint8), np.ones((2, 16000), np.float32)
    maps, _, agnostic = ours.predict_all(frames, waves)
    assert agnostic is not None and agnostic.shape == (2, *maps.shape[2:])
    np.testing.assert_array_equal(ours.predict(frames, waves)[0], maps)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"model": "models:/a@b"},
        {"model": "models:/a@b", "data": Path("."), "predictions": Path("x")},
        {"predictions": Path("x"), "modes": []},
        {"predictions": Path("x"), "modes": ["wrong"]},
    ],
)
def test_wrong_use(arguments: dict, annotations: Path) -> None:
    with pytest.raises(UsageError, match="expected"):
        evaluate("vgg-ss", annotations, **arguments)


def test_nothing_to_score_is_an_error_that_counts_the_causes(known: None, annotations: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"none of the 7 items of vgg-ss can be scored \(no file 7\)"):
        evaluate("vgg-ss", annotations, data=tmp_path / "empty", model="models:/a@b", store=tmp_path, compute=HERE)
    path = predictions(tmp_path / "maps.parquet", {"other": LEFT})
    with pytest.raises(DataError, match="no prediction 7"):
        evaluate("vgg-ss", annotations, predictions=path, store=tmp_path, compute=HERE)
    with pytest.raises(UsageError, match="did you mean vgg-ss"):
        evaluate("vggss", annotations, predictions=path)


def test_scores_reach_mlflow_under_protocol_and_mode(annotations: Path, tmp_path: Path) -> None:
    path = predictions(tmp_path / "maps.parquet", {key: LEFT for key in KEYS})
    done = evaluate("vgg-ss", annotations, predictions=path, store=tmp_path, compute=HERE)
    assert done["tracking"]["complete"]
    import mlflow

    run = mlflow.MlflowClient(done["tracking"]["uri"]).get_run(done["tracking"]["run_id"])
    found = run.data.metrics
    for mode in ("reference", "correct"):
        value = done["modes"][mode]["metrics"]["iou@0.5"]
        assert found[f"vgg-ss.{mode}.iou_at_0.5"] == value["value"]
        assert found[f"vgg-ss.{mode}.iou_at_0.5.low"] == value["low"]
        assert found[f"vgg-ss.{mode}.coverage"] == 1
        assert f"vgg-ss.{mode}.centred_disk.auc" in found
    assert run.data.params["benchmark"] == "vgg-ss" and run.info.status == "FINISHED"


KILLED = """
import sys, time
from pathlib import Path
from dsol_core.config import Compute
from tasks import evaluate_benchmark
from tasks.adapters import localizers
from tests.tasks import benchmark_media
evaluate_benchmark.BLOCK = 1
def slow(*arrays):
    time.sleep({pause})
    return benchmark_media.left_half(*arrays)
made = benchmark_media.model()
localizers.load = lambda *_: localizers.Model(made.entries, made.side, 16000, slow, identity="one")
done = evaluate_benchmark.evaluate("vgg-ss", Path({annotations!r}), data=Path({media!r}), model="models:/a@b",
    store=Path({store!r}), compute=Compute(workers=0), track=False)
print(len(benchmark_media.SAID), done["modes"]["correct"]["scored"])
"""


def test_a_killed_run_goes_on_where_it_stopped(annotations: Path, media: Path, tmp_path: Path) -> None:
    def start(pause: float) -> subprocess.Popen[str]:
        code = KILLED.format(pause=pause, annotations=str(annotations), media=str(media), store=str(tmp_path))
        root = Path(__file__).resolve().parents[2]
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "."},
        )

    first = start(1.5)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("benchmarks/*/parts/*/*.parquet")) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    left = len(list(tmp_path.glob("benchmarks/*/parts/*/[0-9a-f]*.parquet")))
    assert 1 <= left < 5
    second = start(0)
    told, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    asked, scored = map(int, told.split())
    assert scored == 3 and asked < 3


@pytest.mark.slow
@pytest.mark.cluster
def test_on_a_real_cluster(annotations: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.adapters import cluster

    monkeypatch.setattr(evaluate_benchmark, "BLOCK", 2)
    trained = publish(tmp_path / "store")
    here = {"data": media, "model": str(trained.stage_two.folder), "track": False}
    alone = evaluate("vgg-ss", annotations, **here, out=tmp_path / "alone", compute=HERE)
    try:
        spread = evaluate("vgg-ss", annotations, **here, out=tmp_path / "spread", compute=Compute(workers=1))
    finally:
        cluster.stop()
    assert spread["modes"] == alone["modes"] and spread["modes"]["correct"]["scored"] == 3


def test_mixing() -> None:
    quiet, loud = np.float32([0.1, -0.1]), np.float32([0.4, 0.4])
    np.testing.assert_array_equal(mix_sounds([quiet], "average"), quiet)
    np.testing.assert_array_equal(mix_sounds([quiet, loud], "first"), quiet)
    np.testing.assert_allclose(mix_sounds([quiet, loud], "sum"), [0.5, 0.3])
    np.testing.assert_allclose(mix_sounds([quiet, loud], "average"), [0.1, 0], atol=1e-7)  # both at RMS 0.1
    np.testing.assert_allclose(mix_sounds([quiet, 0 * loud], "average"), quiet / 2)


def test_a_cropped_view_is_put_back_into_the_frame() -> None:
    """A frame twice as wide as high, of which the model saw the middle square."""
    found = whole_frame(np.ones((1, 4, 4), np.float32), View((16, 32), width=0.5))
    np.testing.assert_array_equal(found[0], np.tile(np.repeat([0, 0, 1, 1, 1, 1, 0, 0], 4), (16, 1)))


@pytest.mark.parametrize("cells", [7, 8, 10, 14])
def test_a_cropped_view_covers_its_share_of_the_frame(cells: int) -> None:
    """Of a 4:3 picture the middle square is three quarters."""
    view = View.of(SimpleNamespace(square="crop", side=224), 480, 640)
    found = whole_frame(np.ones((2, cells, cells), np.float32), view)
    assert found.shape[1] == 4 * cells
    assert found[0, 0].mean() == pytest.approx(0.75, abs=1 / found.shape[2])
    whole = View.of(SimpleNamespace(square="stretch", side=224), 480, 640)
    assert whole_frame(found, whole).shape == found.shape


def test_names_match_whatever_their_spelling() -> None:
    assert plain("Acoustic_Guitar ") == plain("acoustic  guitar") == plain("acoustic-guitar")
    found = match_classes(["Cello", "cluster-03"], ["cello", "violin"], {"Cluster 03": "VIOLIN"})
    assert found.known == {"Cello": "cello", "cluster-03": "violin"}
    found = match_classes(["bow", "bow 2", "bow 3"], ["cello", "violin"], {"bow": "cello", "bow 3": "violin"})
    assert found.known == {"bow": "cello", "bow 2": "cello", "bow 3": "violin"}
    found = match_classes(["cello", "cello 2", "viola"], ["cello", "violin"], {})
    assert found.known == {"cello": "cello", "cello 2": "cello"}
    assert (found.unknown, found.unused) == (("violin",), ("viola",))
    with pytest.raises(UsageError, match="'harp' is unknown"):
        match_classes(["cello"], ["cello"], {"harp": "cello"})
