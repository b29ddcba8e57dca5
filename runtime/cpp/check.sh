#!/usr/bin/env bash
# Builds and tests the C++ library: release, then under sanitizers, then a minute of fuzzing.
# Usage: check.sh PYTHON OUT, PYTHON being one with glesam-deploy[dev]; OUT is for build folders.
set -euo pipefail
python=$(realpath -s "$1")
out=$2
here=$(dirname "$0")
fuzz_seconds=60

packages=(cmake ninja-build g++ clang pkg-config nlohmann-json3-dev libstb-dev)
is_complete() {
    command -v cmake ninja g++ clang++ pkg-config >/dev/null &&
        echo '#include <nlohmann/json.hpp>' | g++ -xc++ -fsyntax-only - 2>/dev/null &&
        pkg-config --exists stb
}
if ! is_complete; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
    else
        echo "error: make test-cpp needs more than is installed: sudo apt-get install ${packages[*]}" >&2
        exit 2
    fi
fi

openvino=$("$python" -c 'import openvino; print(openvino.__path__[0])')
common=(-S "$here" -G Ninja -DGLESAM_WERROR=ON)
tested=("${common[@]}" -DGLESAM_OPENVINO=ON -DGLESAM_TESTS=ON "-DOpenVINO_DIR=$openvino/cmake"
    "-DPython3_EXECUTABLE=$python" "-DGLESAM_NANO2=$(realpath -m "$out")/cpp-nano2")

build() { # folder, options
    cmake -B "$@" >/dev/null
    cmake --build "$1" | tail -n 1
}

echo "== release"
build "$out/cpp" "${tested[@]}"
ctest --test-dir "$out/cpp" --output-on-failure --no-tests=error -j 2
echo "== address and undefined-behaviour sanitizers"
build "$out/cpp-sanitized" "${tested[@]}" -DGLESAM_SANITIZE=address,undefined \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo
ctest --test-dir "$out/cpp-sanitized" --output-on-failure --no-tests=error -j 2
echo "== fuzzing, $fuzz_seconds seconds in all"
build "$out/cpp-fuzz" "${common[@]}" -DGLESAM_FUZZERS=ON -DGLESAM_TOOLS=OFF \
    -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo
PYTHONPATH=$here/.. "$python" "$here/fuzz/seeds.py" "$out/cpp-fuzz/seeds"
for reader in manifest onnx safetensors; do
    found=$out/cpp-fuzz/found/$reader
    mkdir -p "$found"
    "$out/cpp-fuzz/fuzz/fuzz_$reader" "-max_total_time=$((fuzz_seconds / 3))" -max_len=65536 \
        "-dict=$here/fuzz/json.dict" "-artifact_prefix=$found/" -print_final_stats=1 \
        "$found" "$out/cpp-fuzz/seeds/$reader" 2>&1 |
        grep -E "ERROR|SUMMARY|Test unit|number_of_executed_units" | sed "s/^/$reader: /"
done
