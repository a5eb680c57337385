#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: provider.sh VENV cpu|cuda|cuda12|tensorrt|jetpack [INDEX]
# Put the ONNX Runtime for a provider into a virtual environment that `make setup` has made. Two builds of it in one
# environment break each other, so the one that is there is removed, but only once all that takes its place is here, is
# whole, and starts with this Python.
#   cpu       as `make setup` leaves it
#   cuda      CUDA 13 and cuDNN 9 come along as wheels; the machine needs only NVIDIA's driver, 580 or newer
#   cuda12    the last release for CUDA 12 (driver 525 or newer); its libraries come along too
#   tensorrt  cuda, and the TensorRT 10 that this release is linked with; NVIDIA's packages fetch it from its own index
#   jetpack   the wheel of INDEX, a pip index for this JetPack; CUDA and the rest are those of the machine or image
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
usage="usage: provider.sh VENV cpu|cuda|cuda12|tensorrt|jetpack [INDEX]"
venv=$(cd "${1:?$usage}" && pwd)
provider=${2:?$usage}
index=${3:-}
pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input)
# The same release as the one that is tested on the CPU.
release=$(sed -n 's/^onnxruntime==//p' "$root/constraints.txt")

class=CUDAExecutionProvider
options=() source=()
case $provider in
  cpu) exit 0 ;;
  cuda) install=("onnxruntime-gpu[cuda,cudnn]==$release") ;;
  cuda12) install=("onnxruntime-gpu[cuda,cudnn]==1.26.0") ;;
  tensorrt)
    class=TensorrtExecutionProvider
    install=("onnxruntime-gpu[cuda,cudnn]==$release" "tensorrt-cu13-libs>=10.13,<11")
    ;;
  # What it depends on is there already, and such an index has no other package.
  jetpack)
    options=(--no-deps)
    source=(--index-url "${index:?$usage}")
    install=(onnxruntime-gpu)
    ;;
  *) echo "unknown provider $provider; $usage" >&2 && exit 2 ;;
esac

# Beside what it replaces: on the same disk there is room for it then.
new=$(mktemp -d "$venv/provider.XXXXXX")
trap 'rm -rf "$new"' EXIT
give_up() {
  echo "provider.sh: $1; nothing was changed in $venv" >&2
  exit 1
}

# Not `pip download`: what is no wheel fetches its libraries only while it is built.
"${pip[@]}" wheel --quiet -c "$root/constraints.txt" --wheel-dir "$new" "${options[@]}" "${source[@]}" "${install[@]}" ||
  give_up "onnxruntime-gpu and what it needs could not be downloaded"
check="import sys, zipfile; sys.exit(zipfile.ZipFile(sys.argv[1]).testzip())"
for wheel in "$new"/*.whl; do
  "$venv/bin/python" - "$wheel" 2>/dev/null <<<"$check" || give_up "$(basename "$wheel") was downloaded damaged"
done
"${pip[@]}" install --quiet --no-index --no-deps --target "$new/check" "$new"/onnxruntime_gpu-*.whl ||
  give_up "the onnxruntime-gpu that was downloaded does not fit this Python"
PYTHONPATH="$new/check" "$venv/bin/python" - "$class" <<'EOF' || give_up "the onnxruntime-gpu that was downloaded does not start"
import sys

import onnxruntime

sys.exit(sys.argv[1] not in onnxruntime.get_available_providers() and f"it has no {sys.argv[1]}")
EOF
rm -rf "$new/check"

"${pip[@]}" uninstall --quiet --yes onnxruntime onnxruntime-gpu
"${pip[@]}" install --quiet -c "$root/constraints.txt" --no-index --find-links "$new" "${options[@]}" "${install[@]}" || {
  echo "provider.sh: installing failed, and $venv has no ONNX Runtime now; fix what pip reports, then run this again" >&2
  exit 1
}
"$venv/bin/python" -c 'import onnxruntime as ort; print("ONNX Runtime", ort.__version__, ort.get_available_providers())'
