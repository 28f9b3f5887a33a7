#!/usr/bin/env bash
# Lays out a CUDA toolkit (13.0) and cuDNN from Python wheels, for machines without one: enough to build `--features cuda`.
#
# usage: scripts/cuda_toolkit.sh FOLDER
# Needs python3 with venv, gcc, and a `cargo fetch` done before. Prints the variables to build with. A program built so still needs
# the driver (libcuda.so.1) and, in LD_LIBRARY_PATH, the toolkit's libraries wherever it starts.
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
[ -x "$folder/venv/bin/pip" ] || python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-deps \
  nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85 \
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-nvrtc==13.0.88 nvidia-cublas==13.1.0.3 nvidia-curand==10.4.0.35 \
  nvidia-cudnn-cu13==9.19.0.56
packages=$(echo "$folder"/venv/lib/python3*/site-packages/nvidia)
toolkit=$packages/cu13
# Linkers look for names without a version, and the wheels hold only those with one.
for library in "$toolkit"/lib/lib*.so.* "$packages"/cudnn/lib/libcudnn*.so.9; do
  name=$(basename "$library")
  [ -e "$toolkit/lib/$name" ] || ln -s "$library" "$toolkit/lib/$name"
  ln -sf "$library" "$toolkit/lib/${name%%.so*}.so"
done
ln -sfn lib "$toolkit/lib64"
ln -sf "$packages"/cudnn/include/* "$toolkit/include/"
# No wheel holds the driver's library, so one with the same names and nothing in them stands in while linking.
mkdir -p "$toolkit/lib/stubs"
grep -rhoE 'fn cu[A-Z][A-Za-z0-9_]*' "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-*/src/driver/sys/*.rs |
  sed 's/fn //' | sort -u | sed 's/.*/void &(void){}/' > "$folder/driver.c"
gcc -shared -o "$toolkit/lib/stubs/libcuda.so" -Wl,-soname,libcuda.so.1 "$folder/driver.c"
ln -sfn "$toolkit" "$folder/home"
cat <<EOF
export CUDA_HOME=$folder/home PATH=$folder/home/bin:\$PATH
export LIBRARY_PATH=$folder/home/lib/stubs:$folder/home/lib LD_LIBRARY_PATH=$folder/home/lib
export RUSTFLAGS="-C link-arg=-Wl,--allow-shlib-undefined"
export CUDA_COMPUTE_CAP=90  # of the GPU that it will run on: 80 for A100, 90 for H100 and H200
EOF
