"""Checkpoints: one safetensors file with the config as JSON in its metadata. Nothing executes on load."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dsol_core.config import StageOneConfig, StageTwoConfig
from dsol_core.dictionary import ObjectDictionary
from dsol_core.stage_one_net import StageOneNet, build_stage_one
from dsol_core.stage_two_net import StageTwoNet
from dsol_core.types import CheckpointError

FORMAT = 2  # of the files; raised when an older reader would misunderstand them
METADATA = "dsol"  # name of the entry of a file's metadata that holds ours, JSON


@dataclass(frozen=True)
class Checkpoint:
    """A loaded file: the configs it was made with and its tensors. `config` is the one of its own stage."""

    config: StageOneConfig | StageTwoConfig
    stage_one: StageOneConfig
    tensors: dict[str, Tensor]

    def network(self) -> StageOneNet | StageTwoNet:
        """Build the network in evaluation mode, on the CPU."""
        net: StageOneNet | StageTwoNet = build_stage_one(self.stage_one)
        if isinstance(self.config, StageTwoConfig) and isinstance(net, StageOneNet):
            net = StageTwoNet(self.config, net, self.tensors["dictionary"])
        try:
            net.load_state_dict(self.tensors)
        except RuntimeError as error:
            raise CheckpointError(f"checkpoint does not fit its own config ({error}); train it again") from error
        return net.eval()


def save(path: Path, net: nn.Module, config: StageOneConfig | StageTwoConfig) -> None:
    """Write a network's weights and configs to one file.

    Raises:
        CheckpointError: the config is not the one that the network was built with.
    """
    if not isinstance(net, StageOneNet | StageTwoNet) or net.config != config:
        raise CheckpointError(
            f"{type(net).__name__} was not built with the given {type(config).__name__}; pass net.config"
        )
    stage_one = net if isinstance(net, StageOneNet) else net.stage_one
    stage_two = net.config if isinstance(net, StageTwoNet) else None
    header = {
        "stage_one": dataclasses.asdict(stage_one.config),
        "stage_two": None if stage_two is None else dataclasses.asdict(stage_two),
    }
    _write(path, {name: tensor for name, tensor in net.state_dict().items()}, "network", header)


def load(path: Path) -> Checkpoint:
    """Read a file made by `save`.

    Raises:
        CheckpointError: missing, damaged, of another format version or of another kind.
    """
    tensors, header = _read(path, "network")
    stage_one = from_plain(StageOneConfig, header["stage_one"])
    two = header["stage_two"]
    if two is not None:
        two = {"windows": 1} | two  # what every model did before it was an option
    stage_two = None if two is None else from_plain(StageTwoConfig, two)
    return Checkpoint(stage_two or stage_one, stage_one, tensors)


def save_dictionary(path: Path, dictionary: ObjectDictionary) -> None:
    """Write an object dictionary to one file."""
    tensors = {
        "centers": torch.from_numpy(np.asarray(dictionary.centers, np.float32)),
        "counts": torch.from_numpy(np.asarray(dictionary.counts, np.int64)),
    }
    categories = None if dictionary.categories is None else list(dictionary.categories)
    _write(path, tensors, "dictionary", {"names": list(dictionary.names), "categories": categories})


def load_dictionary(path: Path) -> ObjectDictionary:
    """Read a file made by `save_dictionary`.

    Raises:
        CheckpointError: missing, damaged, of another format version or of another kind.
    """
    tensors, header = _read(path, "dictionary")
    categories = header["categories"]
    return ObjectDictionary(
        tensors["centers"].numpy(),
        tensors["counts"].numpy(),
        tuple(header["names"]),
        None if categories is None else tuple(categories),
    )


def _write(path: Path, tensors: dict[str, Tensor], kind: str, header: dict[str, Any]) -> None:
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    about = {"format": FORMAT, "kind": kind, "header": header}
    # One entry only: safetensors writes several in an order that changes from file to file, and equal weights would
    # make different files.
    save_file(plain, path, metadata={METADATA: json.dumps(about, sort_keys=True)})


def _read(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not Path(path).is_file():
        raise CheckpointError(f"{path} does not exist; expected a file written by this package")
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}); make it again") from error
    if about.get("format") != FORMAT or about.get("kind") != kind:
        raise CheckpointError(
            f"{path} holds {about.get('kind', 'foreign tensors')} in format {about.get('format')}; expected "
            f"{kind} in format {FORMAT}: use the file and the version of this package that belong together"
        )
    return tensors, dict(about["header"])


def from_plain(kind: type[Any], values: dict[str, Any]) -> Any:
    """Build a config dataclass from `dataclasses.asdict` after a trip through JSON.

    Raises:
        CheckpointError: a field is unknown.
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise CheckpointError(f"{kind.__name__} has no fields {unknown}; the file was made by a newer version")
    return kind(**{name: _plain_value(hints[name], value) for name, value in values.items()})


def _plain_value(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_plain(hint, value)
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(value) if isinstance(value, list) and any(typing.get_origin(o) is tuple for o in options) else value
