// A minimal test framework with named tests and checks that report the values.
#pragma once

#include <cstdio>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace glesam_tests {

struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename A, typename B>
void check_equal(const A& found, const B& wanted, const char* what, int line) {
  if (found == wanted) return;
  std::ostringstream text;
  text << "line " << line << ": " << what << " is " << found << ", not " << wanted;
  throw Failed(text.str());
}

inline void check_contains(const std::string& text, const std::string& part, int line) {
  if (text.find(part) != std::string::npos) return;
  throw Failed("line " + std::to_string(line) + ": \"" + text + "\" lacks \"" + part + "\"");
}

#define CHECK_EQUAL(found, wanted) glesam_tests::check_equal(found, wanted, #found, __LINE__)
#define CHECK(condition) glesam_tests::check_equal(bool(condition), true, #condition, __LINE__)
#define CHECK_CONTAINS(text, part) glesam_tests::check_contains(text, part, __LINE__)

struct Test {
  const char* name;
  std::function<void()> run;
};

// Runs all tests and returns the exit code for main.
inline int run_tests(const std::vector<Test>& tests) {
  int failed = 0;
  for (const Test& test : tests) {
    try {
      test.run();
    } catch (const std::exception& error) {
      std::printf("FAILED %s: %s\n", test.name, error.what());
      ++failed;
    }
  }
  std::printf("%zu tests, %d failed\n", tests.size(), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace glesam_tests
