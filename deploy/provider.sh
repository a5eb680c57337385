#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: provider.sh VENV cpu|cuda|cuda12|tensorrt|jetpack [INDEX]
# Put the ONNX Runtime for a provider into a virtual environment that `make setup` has made. Two builds of it in one
# environment break each other, so the one that is there goes first.
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

case $provider in
  cpu) exit 0 ;;
  cuda) install=("onnxruntime-gpu[cuda,cudnn]==$release") ;;
  cuda12) install=("onnxruntime-gpu[cuda,cudnn]==1.26.0") ;;
  tensorrt) install=("onnxruntime-gpu[cuda,cudnn]==$release" "tensorrt-cu13-libs>=10.13,<11") ;;
  # What it depends on is there already, and such an index has no other package.
  jetpack) install=(--no-deps --index-url "${index:?$usage}" onnxruntime-gpu) ;;
  *) echo "unknown provider $provider; $usage" >&2 && exit 2 ;;
esac

"${pip[@]}" uninstall --quiet --yes onnxruntime onnxruntime-gpu
"${pip[@]}" install --quiet -c "$root/constraints.txt" "${install[@]}"
"$venv/bin/python" -c 'import onnxruntime as ort; print("ONNX Runtime", ort.__version__, ort.get_available_providers())'
