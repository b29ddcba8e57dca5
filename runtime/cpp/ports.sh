#!/usr/bin/env bash
# Builds the C++ library for other compilers and systems, without an engine, and runs the tests that
# need none: clang, 64-bit ARM Linux in qemu-user, and 64-bit Windows in Wine.
# Usage: ports.sh OUT [PORT ...]
#   OUT: the folder for build folders
#   PORT: clang, aarch64 or windows; all by default
set -euo pipefail
out=$1
ports=("${@:2}")
[ ${#ports[@]} -gt 0 ] || ports=(clang aarch64 windows)
here=$(dirname "$0")
packages=(cmake ninja-build clang nlohmann-json3-dev g++-aarch64-linux-gnu qemu-user
    g++-mingw-w64-x86-64 wine64)
wine=/usr/lib/wine/wine64 # Debian's wine64 has no program in PATH
tools=(cmake ninja clang++ aarch64-linux-gnu-g++ qemu-aarch64 x86_64-w64-mingw32-g++-posix "$wine")
missing() { # prints the name of each tool that is not installed
    local tool
    for tool in "${tools[@]}"; do
        command -v "$tool" >/dev/null || echo "$tool"
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

for port in "${ports[@]}"; do
    echo "== $port"
    options=(-DGLESAM_TESTS=ON -DGLESAM_TOOLS=OFF -DGLESAM_WERROR=ON)
    case $port in
        clang) options+=(-DCMAKE_CXX_COMPILER=clang++ -DCMAKE_C_COMPILER=clang) ;;
        aarch64)
            options+=("-DCMAKE_TOOLCHAIN_FILE=$(realpath "$here")/cmake/aarch64-linux-gnu.cmake"
                "-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu")
            ;;
        windows)
            options+=("-DCMAKE_TOOLCHAIN_FILE=$(realpath "$here")/cmake/mingw-w64.cmake"
                "-DCMAKE_CROSSCOMPILING_EMULATOR=$wine")
            export WINEPREFIX WINEDEBUG=-all
            WINEPREFIX=$(realpath -m "$out/wine")
            ;;
        *)
            echo "error: port $port is not known; known are clang, aarch64, windows" >&2
            exit 2
            ;;
    esac
    cmake -S "$here" -B "$out/cpp-$port" -G Ninja "${options[@]}" >/dev/null
    cmake --build "$out/cpp-$port" | tail -n 1
    ctest --test-dir "$out/cpp-$port" --output-on-failure --no-tests=error
done
