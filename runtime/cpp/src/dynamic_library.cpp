#include "dynamic_library.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "errors.h"
#include "text.h"

namespace glesam {

namespace {

#ifdef _WIN32
// Libraries are never unloaded, because engines leave threads and thread-local data behind.
void* load(const std::string& name) {
  HMODULE module = LoadLibraryW(path_of(name).c_str());
  HMODULE pinned = nullptr;
  if (module != nullptr) {
    GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                       reinterpret_cast<LPCWSTR>(module), &pinned);
  }
  return module;
}
std::string reason_of(const std::string& name) {
  return cat(name, ": Windows error ", static_cast<std::int64_t>(GetLastError()));
}
void unload(void* library) { FreeLibrary(static_cast<HMODULE>(library)); }
void* symbol_of(void* library, const char* symbol) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), symbol));
}
#else
// Libraries are never unloaded, because engines leave threads and thread-local data behind.
void* load(const std::string& name) {
  return dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}
std::string reason_of(const std::string& name) {
  const char* said = dlerror();
  return said != nullptr ? said : name;
}
void unload(void* library) { dlclose(library); }
void* symbol_of(void* library, const char* symbol) { return dlsym(library, symbol); }
#endif

}  // namespace

DynamicLibrary::DynamicLibrary(const std::string& what, const std::vector<std::string>& names,
                               const std::string& remedy) {
  std::string reason;
  for (const std::string& name : names) {
    handle_ = load(name);
    if (handle_ != nullptr) {
      name_ = name;
      return;
    }
    const std::string said = reason_of(name);
    if (reason.empty()) reason = said;  // the first name is the usual one
  }
  backend_error(cat(what, " cannot be loaded (", reason, "); ", remedy));
}

DynamicLibrary::~DynamicLibrary() {
  if (handle_ != nullptr) unload(handle_);
}

void* DynamicLibrary::find(const char* symbol) const {
  void* found = symbol_of(handle_, symbol);
  if (found == nullptr) backend_error(cat(name_, ": lacks ", symbol, "; is it the right library?"));
  return found;
}

}  // namespace glesam
