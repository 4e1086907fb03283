#!/usr/bin/env bash
# Install dsol from a folder of build.sh, without a registry, beside the torch that this machine has.
#   FOLDER/install.sh ENVIRONMENT                 makes this virtual environment
#   PYTHON=/path/to/python                        the interpreter that imports torch
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
folder=$(cd "$(dirname "$0")" && pwd)
environment=$1
python=${PYTHON:-python3}
(cd "$folder" && sha256sum --quiet --check SHA256SUMS) || { echo "$folder is incomplete: copy it again" >&2; exit 1; }
site=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])') \
    || { echo "$python does not import torch: give PYTHON=, the interpreter that does" >&2; exit 1; }
"$python" -m venv --without-pip "$environment"
# pip of the given interpreter installs into the new environment; torch's own packages come last on its path.
own=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -m pip --python "$environment/bin/python" install --quiet --disable-pip-version-check \
    --no-index --no-deps --find-links "$folder/wheels" -r "$folder/pinned.txt" dsol
echo "$site" > "$own/torch_of_this_machine.pth"
tar -xzf "$folder/source.tar.gz" -C "$environment"
"$environment/bin/python" - <<'PY'
import importlib.metadata as metadata
import importlib.util
import sys

import torch
from packaging.requirements import Requirement

wanted = next(r for r in map(Requirement, metadata.requires("dsol") or []) if r.name == "torch" and r.marker is None)
if torch.__version__.split("+")[0] not in wanted.specifier:
    print(f"note: torch {torch.__version__} here, dsol is tested with {wanted}; run the checks below", file=sys.stderr)
if importlib.util.find_spec("torchvision") is None:
    print("note: no torchvision here, which timm needs: install the one of this torch, or build with TORCHVISION=1", file=sys.stderr)
PY
echo "installed into $environment; then: $environment/bin/dsol doctor"
echo "and: cd $environment/dsol && ../bin/python benchmarks/gpu_check.py"
