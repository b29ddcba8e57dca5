// The memory of this process.
#pragma once

#include <unistd.h>

#include <fstream>

// Returns the resident memory in MiB.
inline double resident_mib() {
  std::ifstream file("/proc/self/statm");
  long all = 0, resident = 0;
  file >> all >> resident;
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}
