#!/usr/bin/env bash
# Builds the GStreamer element, also with the address sanitizer, and tests it.
# Usage: check.sh PYTHON OUT
#   PYTHON: an interpreter that has glesam-deploy[dev]
#   OUT: the folder for build folders
set -euo pipefail
python=$(realpath -s "$1")
out=$(realpath -m "$2")
here=$(realpath "$(dirname "$0")")
repository=$(realpath "$here/../../..")

packages=(cmake ninja-build g++ pkg-config nlohmann-json3-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
    gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good)
missing() { # prints what is not installed
    local tool element
    for tool in cmake ninja g++ pkg-config gst-launch-1.0; do
        command -v "$tool" >/dev/null || echo "$tool"
    done
    pkg-config --exists gstreamer-video-1.0 2>/dev/null || echo gstreamer-video-1.0
    echo '#include <nlohmann/json.hpp>' | g++ -xc++ -fsyntax-only - 2>/dev/null || echo nlohmann/json.hpp
    for element in videoconvert jpegdec avidemux pngenc; do
        gst-inspect-1.0 --exists "$element" 2>/dev/null || echo "$element"
    done
}
if [ -n "$(missing)" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
lacking=$(missing)
if [ -n "$lacking" ]; then
    echo "error: not installed: ${lacking//$'\n'/, }; run: sudo apt-get install ${packages[*]}" >&2
    exit 2
fi

openvino=$("$python" -c 'import openvino; print(openvino.__path__[0])')
build() { # folder, options
    cmake -S "$here/.." -G Ninja -DGLESAM_WERROR=ON -DGLESAM_OPENVINO=ON -DGLESAM_GSTREAMER=ON -DGLESAM_TOOLS=OFF \
        -DGLESAM_GSTREAMER_TESTS=ON "-DOpenVINO_DIR=$openvino/cmake" -B "$@" >/dev/null
    cmake --build "$1" | tail -n 1
}
build "$out/cpp-gstreamer"
build "$out/cpp-gstreamer-sanitized" -DGLESAM_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo

cd "$repository"
export PYTHONPATH=$repository/runtime:$repository/evaluation
export GLESAM_GST_BUILD=$out/cpp-gstreamer GLESAM_GST_SANITIZED=$out/cpp-gstreamer-sanitized
export GLESAM_GST_PICTURES=$out/cpp-gstreamer
"$python" -m pytest -q -rP --import-mode=prepend -p no:cacheprovider "$here/tests"
