// Opens each folder that is named and prints one line: what is wrong with the bundle, or "ok".
#include <cstdio>

#include "bundle.h"
#include "errors.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const glesam::Status status =
        glesam::guard([&] { glesam::load_golden(glesam::open_bundle(argv[i])); });
    std::puts(status ? "ok" : status.message.c_str());
  }
  return 0;
}
