#include "tensorrt_fit.h"

#ifndef _WIN32
#include <sys/utsname.h>
#endif

#include <algorithm>
#include <cctype>
#include <sstream>
#include <vector>

#include "errors.h"
#include "text.h"

namespace glesam {
namespace {

// Returns the system's name as the manifest spells it, such as "linux-x86_64".
std::string system_name() {
#ifdef _WIN32
  return "windows-amd64";  // the only one that TensorRT has on Windows
#else
  utsname names{};
  if (uname(&names) != 0) backend_error("the operating system does not say what it is");
  std::string name = cat(names.sysname, "-", names.machine);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name;
#endif
}

// Returns the numbers of a version: "10.13.3.9" gives 10, 13, 3, 9. It stops at the first part that
// is not a number and returns at least one number.
std::vector<int> version_numbers(const std::string& version) {
  std::vector<int> numbers;
  std::istringstream parts(version);
  for (int number = 0; parts >> number; parts.ignore()) numbers.push_back(number);
  if (numbers.empty()) numbers.push_back(0);
  return numbers;
}

}  // namespace

void check_library(const Bundle& bundle, const std::string& version) {
  const Target& target = bundle.manifest.target;
  const EngineBuild& build = *target.build;
  const std::string where = utf8_of(bundle.path);
  const std::string here = system_name();
  if (build.system != here) {
    backend_error(cat(where, ": its engines were built on ", build.system, ", this is ", here,
                      "; compile the ONNX bundle on this system with glesam-export trt"));
  }
  if (build.stripped) {
    backend_error(cat(where,
                      ": its engines hold no weights, which this program does not put in; "
                      "compile without --strip-weights"));
  }
  const auto built = version_numbers(build.version), found = version_numbers(version);
  const bool same =
      std::equal(found.begin(), found.end(), built.begin(),
                 built.begin() + static_cast<std::ptrdiff_t>(std::min(found.size(), built.size())));
  const bool later = build.version_compatible && built <= found && found[0] <= built[0] + 1;
  if (same || later) return;
  backend_error(cat(where, ": its engines need ", target.engine, " ", build.version, ", ", version,
                    " is installed; compile the ONNX bundle with it: "
                    "glesam-export trt"));
}

void check_gpu(const Bundle& bundle, const std::string& here) {
  const EngineBuild& build = *bundle.manifest.target.build;
  const auto& built_for = build.compute_capabilities;
  if (std::count(built_for.begin(), built_for.end(), here) > 0) return;
  if (build.runs_on_newer_gpus && std::stoi(here) >= 8) return;
  backend_error(cat(utf8_of(bundle.path), ": its engines were built for compute capability ",
                    join(built_for, ", "), ", this GPU has ", here,
                    "; build them for it with glesam-export"));
}

}  // namespace glesam
