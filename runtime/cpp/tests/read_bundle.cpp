// Opens each folder that is named and prints one line: the code of the error, 0 if
// there is none, and what is wrong with the bundle.
#include <cstdio>

#include "bundle.h"
#include "errors.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const glesam::Status status =
        glesam::guard([&] { glesam::load_golden(glesam::open_bundle(argv[i])); });
    std::printf("%d %s\n", static_cast<int>(status.code), status.message.c_str());
  }
  return 0;
}
