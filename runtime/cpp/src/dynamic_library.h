// A shared library that is loaded at run time.
#pragma once

#include <string>
#include <vector>

namespace glesam {

class DynamicLibrary {
 public:
  // Loads the first of `names` that exists. Throws Error (backend) if none does; its message starts
  // with `what` and ends with `remedy`.
  DynamicLibrary(const std::string& what, const std::vector<std::string>& names,
                 const std::string& remedy);
  ~DynamicLibrary();
  DynamicLibrary(const DynamicLibrary&) = delete;
  DynamicLibrary& operator=(const DynamicLibrary&) = delete;

  const std::string& name() const { return name_; }

  // Returns a function by its name. Throws Error (backend) if the library lacks it.
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
