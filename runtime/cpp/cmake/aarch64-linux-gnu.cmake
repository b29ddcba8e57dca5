# The toolchain for 64-bit ARM, such as Jetson, with the cross-compiler of Debian and Ubuntu.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# Programs and header-only libraries come from the host; compiled libraries never do.
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
