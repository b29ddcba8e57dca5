# The toolchain for 64-bit Windows, with the cross-compiler of Debian and Ubuntu that has C++ threads.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc-posix)
set(CMAKE_CXX_COMPILER x86_64-w64-mingw32-g++-posix)
# Programs then need no DLLs of the compiler.
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
set(CMAKE_SHARED_LINKER_FLAGS_INIT -static)
# Programs and header-only libraries come from the host; compiled libraries never do.
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
