# A toolchain for 64-bit ARM, such as Jetson, with Debian's and Ubuntu's cross-compiler.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# Programs and header-only libraries are the host's; libraries never are.
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
