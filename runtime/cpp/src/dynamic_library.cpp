#include "dynamic_library.h"

#include <dlfcn.h>

#include "errors.h"
#include "text.h"

namespace glesam {

DynamicLibrary::DynamicLibrary(const std::string& what, const std::vector<std::string>& names,
                               const std::string& remedy) {
  std::string reason;
  for (const std::string& name : names) {
    // The library is never unloaded, because engines leave threads and thread-local data behind.
    handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle_ != nullptr) {
      name_ = name;
      return;
    }
    const char* said = dlerror();
    if (reason.empty()) reason = said != nullptr ? said : name;  // the first name is the usual one
  }
  backend_error(cat(what, " cannot be loaded (", reason, "); ", remedy));
}

DynamicLibrary::~DynamicLibrary() {
  if (handle_ != nullptr) dlclose(handle_);
}

void* DynamicLibrary::find(const char* symbol) const {
  void* found = dlsym(handle_, symbol);
  if (found == nullptr) backend_error(cat(name_, ": lacks ", symbol, "; is it the right library?"));
  return found;
}

}  // namespace glesam
