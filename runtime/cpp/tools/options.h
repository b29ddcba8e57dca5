// The options of the command line.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "glesam.h"

struct Options {
  std::string image;
  std::string bundle;
  std::string output = ".";
  std::vector<double> points;  // x, y for each point
  std::vector<float> labels;
  std::vector<double> boxes;  // x0, y0, x1, y1 for each box
  bool multimask = false;
  bool selftest = false;
  bool help = false;
  bool version = false;
  glesam::Params params = glesam::default_params();
};

class UsageError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

extern const char* const kHelp;

// Parses and checks the arguments. Throws UsageError if one is wrong or missing.
Options parse_options(const std::vector<std::string>& arguments);
