#!/usr/bin/env bash
# Pack dsol and all its pinned packages but torch's into a folder, for a machine that has torch but no registry.
#   infra/offline/build.sh FOLDER [NAME ...]      NAME: only these of constraints.txt (to complete a folder)
#   PYTHON=python3.12                             interpreter of the same version as the other machine's
#   FAISS=gpu                                     faiss-gpu instead of faiss-cpu
#   TORCHVISION=1                                 torchvision too (needs the torch of constraints.txt over there)
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,6s/^# //p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$1; shift
python=${PYTHON:-python3}
other=$([ "${FAISS:-cpu}" = gpu ] && echo cpu || echo gpu)
mkdir -p "$folder/wheels"

# torch brings its own CUDA libraries; torchaudio's transforms work beside any CUDA build of it, torchvision's do not.
leave="^(torch|triton|nvidia-.*|cuda-.*|faiss-$other$([ -n "${TORCHVISION:-}" ] || echo '|torchvision'))=="
packed=$(mktemp)
trap 'rm -f "$packed"' EXIT
grep -vE "^#|$leave" "$root/constraints.txt" > "$packed"
if [ $# -gt 0 ]; then
    some=$(grep -iE "^($(IFS='|'; echo "$*"))==" "$packed") \
        || { echo "none of '$*' is in constraints.txt without torch's packages" >&2; exit 1; }
    echo "$some" > "$packed"
fi

"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$folder/wheels" -r "$packed"
# What is completed keeps the packages that it had.
kept=$([ $# -eq 0 ] || [ ! -f "$folder/pinned.txt" ] \
    || awk -F== 'NR == FNR {packed[tolower($1)]; next} !(tolower($1) in packed)' "$packed" "$folder/pinned.txt")
{ cat "$packed"; [ -z "$kept" ] || echo "$kept"; } | sort -f > "$folder/pinned.txt"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$folder/wheels" "$root"
git -C "$root" archive --format=tar.gz --prefix=dsol/ -o "$(cd "$folder" && pwd)/source.tar.gz" HEAD
cp "$root/infra/offline/install.sh" "$folder/"
(cd "$folder" && find wheels pinned.txt source.tar.gz install.sh -type f | sort | xargs sha256sum > SHA256SUMS)
echo "$(find "$folder/wheels" -name '*.whl' | wc -l) wheels, $(du -sh "$folder" | cut -f1): copy $folder over, then run install.sh there"
