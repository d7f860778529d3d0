#!/bin/sh
# Cross-backend tests and cost on this machine's GPU, in one table:
#   benchmarks/gpu.sh [--sequence DIR] [--out FILE] [--quick]
# With an NVIDIA GPU: installs diffrp-nvdiffrast (non-commercial licence; compiles at first use, needs nvcc) unless
# nvdiffrast is there, and needs a CUDA build of PyTorch. Without: says so, makes the CPU rows, and exits 0.
# PYTHON=/path/to/python chooses the interpreter (default: .venv of ./run setup).
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
sequence= out=out/gpu.md quick=
while [ $# -gt 0 ]; do
  case $1 in
    --sequence) sequence=${2:?--sequence needs a folder}; shift 2 ;;
    --out) out=${2:?--out needs a file}; shift 2 ;;
    --quick) quick=--quick; shift ;;
    *) echo "unknown option '$1'; known: --sequence DIR, --out FILE, --quick" >&2; exit 2 ;;
  esac
done
mkdir -p "$(dirname "$out")"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  "$python" -c 'import nvdiffrast.torch' 2>/dev/null || "$python" -m pip install --quiet diffrp-nvdiffrast ninja ||
    echo "nvdiffrast could not be installed; its rows stay empty" >&2
else
  if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then
    echo "There is an NVIDIA GPU, but this PyTorch was built without CUDA: install one of https://pytorch.org. CPU rows only."
  else
    echo "No NVIDIA GPU: CPU rows only."
  fi
fi
"$python" -m pytest -q -rs test/test_render_backends.py
"$python" benchmarks/gpu.py $quick --out "$out"
if [ -n "$sequence" ]; then
  "$python" benchmarks/fit.py "$sequence" --changes "" "fit.solver=adam fit.device=cpu" "fit.solver=adam fit.device=cuda" |
    tee -a "$out"
fi
echo "wrote $out"
