#!/usr/bin/env bash
# Builds the C++ library and tests it. With --all it does so again under sanitizers, tests shared
# sessions under the thread sanitizer, and then fuzzes the readers and the C API for five minutes.
# Usage: check.sh [--all] PYTHON OUT [OPTION ...]
#   PYTHON: an interpreter that has glesam-deploy[dev]
#   OUT: the folder for build folders
#   OPTION: of CMake, for example to build and test further backends
set -euo pipefail
all=false
if [ "$1" = --all ]; then
    all=true
    shift
fi
python=$(realpath -s "$1")
out=$2
options=("${@:3}")
here=$(dirname "$0")
fuzz_seconds=300

tools=(cmake ninja g++ pkg-config)
packages=(cmake ninja-build g++ pkg-config nlohmann-json3-dev libstb-dev)
if $all; then
    tools+=(clang clang++)
    packages+=(clang)
fi
missing() { # prints the name of each tool and library that is not installed
    local tool
    for tool in "${tools[@]}"; do
        command -v "$tool" >/dev/null || echo "$tool"
    done
    echo '#include <nlohmann/json.hpp>' | g++ -xc++ -fsyntax-only - 2>/dev/null || echo nlohmann/json.hpp
    pkg-config --exists stb 2>/dev/null || echo stb
}
if [ -n "$(missing)" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
fi
lacking=$(missing)
if [ -n "$lacking" ]; then
    echo "error: not installed: ${lacking//$'\n'/, }; run: sudo apt-get install ${packages[*]}" >&2
    exit 2
fi

# ONNX Runtime's C header is in no package of Debian 12, of PyPI or of npm. This one is in Debian 13.
deb=main/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb
deb_sha256=14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08
header=$out/onnxruntime-header
fetch_header() { # from the mirror that apt uses
    local pool
    pool=$(apt-get --print-uris download cmake 2>/dev/null | sed -n "s|^'\(http[^']*/pool\)/.*|\1|p")
    [ -n "$pool" ] && mkdir -p "$header" &&
        "$python" -c 'import sys, urllib.request as r; open(sys.argv[2], "wb").write(r.urlopen(sys.argv[1], timeout=60).read())' \
            "$pool/$deb" "$header/package.deb" &&
        echo "$deb_sha256  $header/package.deb" | sha256sum --check --quiet &&
        dpkg -x "$header/package.deb" "$header"
}
case " ${options[*]}" in
*GLESAM_ONNXRUNTIME*) ;;
*)
    if [ -e "$header/usr/include/onnxruntime" ] || fetch_header 2>"$header.log"; then
        options+=(-DGLESAM_ONNXRUNTIME=ON "-DOnnxRuntime_INCLUDE_DIR=$(realpath "$header")/usr/include/onnxruntime")
    else
        echo "note: ONNX Runtime's backend is neither built nor tested: its header could not be downloaded ($header.log)"
    fi
    ;;
esac

# CUDA's compiler compiles the kernels without a GPU.
if $all && "$python" -m pip install -q --disable-pip-version-check --no-deps --target "$out/nvrtc" \
    'nvidia-cuda-nvrtc-cu12==12.9.*' 2>"$out/nvrtc.log"; then
    GLESAM_NVRTC=$(realpath "$out/nvrtc")/nvidia/cuda_nvrtc/lib
    export GLESAM_NVRTC
elif $all; then
    echo "note: the kernels for GPUs are not compiled by CUDA's compiler: it could not be downloaded ($out/nvrtc.log)"
fi

openvino=$("$python" -c 'import openvino; print(openvino.__path__[0])')
common=(-S "$here" -G Ninja -DGLESAM_WERROR=ON)
tested=("${common[@]}" -DGLESAM_OPENVINO=ON -DGLESAM_TESTS=ON "-DOpenVINO_DIR=$openvino/cmake"
    "-DPython3_EXECUTABLE=$python" "-DGLESAM_NANO2=$(realpath -m "$out")/cpp-nano2" "${options[@]}")

build() { # folder, options
    # A configuration that did not finish leaves a cache that spoils the next one.
    [ -f "$1/configured" ] || rm -rf "$1/CMakeCache.txt" "$1/CMakeFiles"
    rm -f "$1/configured"
    cmake -B "$@" >/dev/null
    touch "$1/configured"
    compile "$1"
}
compile() { # folder, targets
    local folder=$1
    if ! cmake --build "$folder" ${2:+--target "${@:2}"} >"$folder/build.log" 2>&1; then
        grep -v "^\[" "$folder/build.log" >&2
        exit 1
    fi
    tail -n 1 "$folder/build.log"
}

echo "== release"
build "$out/cpp" "${tested[@]}"
ctest --test-dir "$out/cpp" --output-on-failure --no-tests=error -j 2
$all || exit 0

echo "== address and undefined-behaviour sanitizers"
build "$out/cpp-sanitized" "${tested[@]}" -DGLESAM_SANITIZE=address,undefined \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo
ctest --test-dir "$out/cpp-sanitized" --output-on-failure --no-tests=error -j 2
echo "== thread sanitizer"
cmake -B "$out/cpp-threads" "${tested[@]}" -DGLESAM_SANITIZE=thread \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
compile "$out/cpp-threads" sessions c_calls parts
# OpenVINO is not instrumented: what it does to memory is not seen, and neither are its locks.
TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1" ctest --test-dir "$out/cpp-threads" \
    --output-on-failure --no-tests=error -R '^(sessions|c_calls|parts)$'
echo "== fuzzing, $fuzz_seconds seconds in all"
build "$out/cpp-fuzz" "${common[@]}" -DGLESAM_FUZZERS=ON -DGLESAM_TOOLS=OFF \
    -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo
PYTHONPATH=$here/.. "$python" "$here/fuzz/seeds.py" "$out/cpp-fuzz/seeds"
fuzz() { # target, seconds, options of libFuzzer
    local found=$out/cpp-fuzz/found/$1
    mkdir -p "$found"
    "$out/cpp-fuzz/fuzz/fuzz_$1" "-max_total_time=$2" "-artifact_prefix=$found/" -print_final_stats=1 \
        "${@:3}" "$found" "$out/cpp-fuzz/seeds/$1" 2>&1 |
        grep -E "ERROR|SUMMARY|Test unit|number_of_executed_units" | sed "s/^/$1: /"
}
for reader in manifest onnx safetensors; do
    fuzz $reader $((fuzz_seconds / 10)) -max_len=65536 "-dict=$here/fuzz/json.dict"
done
GLESAM_FUZZ_BUNDLE=$here/../glesam_runtime/nano fuzz calls $((fuzz_seconds * 7 / 10)) -max_len=2048 -len_control=0
