// A shared library that is loaded when it is needed.
#pragma once

#include <string>
#include <vector>

namespace glesam {

class DynamicLibrary {
 public:
  // Loads the first of `names` that there is; throws Error (backend), naming `what` and `remedy`.
  DynamicLibrary(const std::string& what, const std::vector<std::string>& names,
                 const std::string& remedy);
  ~DynamicLibrary();
  DynamicLibrary(const DynamicLibrary&) = delete;
  DynamicLibrary& operator=(const DynamicLibrary&) = delete;

  const std::string& name() const { return name_; }

  // A function by its name; throws Error (backend) where the library lacks it.
  template <typename Function>
  Function* function(const char* symbol) const {
    return reinterpret_cast<Function*>(find(symbol));
  }

 private:
  void* find(const char* symbol) const;

  void* handle_ = nullptr;
  std::string name_;
};

}  // namespace glesam
