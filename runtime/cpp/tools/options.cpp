#include "options.h"

#include <charconv>

const char* const kHelp =
    "Usage: glesam-cpp IMAGE --points X,Y[,LABEL] ... --bundle DIR [-o DIR]\n"
    "       glesam-cpp --selftest DIR\n"
    "\n"
    "Segments IMAGE (JPEG, PNG, BMP, TGA; EXIF orientation is not applied) with a GleSAM bundle "
    "and\n"
    "writes <stem>_mask.png, or <stem>_mask_0.png and so on where there are several.\n"
    "\n"
    "  --points X,Y[,LABEL]   a point in pixels; label 1 (object, the default) or 0 (background).\n"
    "                         All points are one prompt.\n"
    "  --box X0,Y0,X1,Y1      a box in pixels. Each is a prompt of its own; with points, one box\n"
    "                         joins them.\n"
    "  --bundle DIR           a bundle folder\n"
    "  -o, --output DIR       folder for the results; default is the current one\n"
    "  --multimask            three masks a prompt instead of one\n"
    "  --no-enhance           plain SAM, without the enhancer\n"
    "  --selftest DIR         compare this machine with the bundle's golden file\n"
    "  --backend NAME         auto, or one of those that --version names\n"
    "  --device NAME          cpu, cuda, cuda:N; default is the backend's\n"
    "  --precision NAME       bf16 or fp16 inside OpenVINO; default is the graphs'\n"
    "  --engine-library FILE  the engine's library, where it is not in its usual place\n"
    "  --threads N            of the engine; default is the engine's choice\n"
    "  --help, --version\n"
    "\n"
    "Exit codes: 0 done, 1 the self-test failed, 2 bad input.\n";

namespace {

std::vector<double> numbers(const std::string& text, const char* option, const char* form,
                            std::size_t least, std::size_t most) {
  std::vector<double> values;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (values.size() <= most) {
    double value = 0;
    const auto result = std::from_chars(at, end, value);
    if (result.ec != std::errc()) break;
    values.push_back(value);
    at = result.ptr;
    if (at == end || *at != ',') break;
    ++at;
  }
  if (at != end || values.size() < least || values.size() > most) {
    throw UsageError(std::string(option) + " " + text + ": " + form + " is needed, in pixels");
  }
  return values;
}

int count_of(const std::string& text, const std::string& option) {
  int value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size() || value < 1) {
    throw UsageError(option + " " + text + ": a number of at least 1 is needed");
  }
  return value;
}

void check(const Options& options) {
  if (options.help || options.version) return;
  const bool prompted = !options.labels.empty() || !options.boxes.empty();
  if (options.selftest) {
    if (prompted || !options.image.empty()) {
      throw UsageError("--selftest takes no image and no prompts");
    }
    return;
  }
  if (options.image.empty()) throw UsageError("no image: name a file (--help shows the options)");
  if (options.bundle.empty()) throw UsageError("no bundle: give --bundle DIR");
  if (!prompted) throw UsageError("no prompt: give --points or --box");
  if (!options.labels.empty() && options.boxes.size() > 4) {
    throw UsageError("--points beside several --box: run once for each object");
  }
}

}  // namespace

Options parse_options(const std::vector<std::string>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    const auto value = [&]() -> const std::string& {
      if (i + 1 == arguments.size()) throw UsageError(name + ": a value is needed");
      return arguments[++i];
    };
    if (name == "--points") {
      const auto point = numbers(value(), "--points", "x,y or x,y,label", 2, 3);
      options.points.insert(options.points.end(), point.begin(), point.begin() + 2);
      options.labels.push_back(point.size() == 3 ? static_cast<float>(point[2]) : 1.0F);
    } else if (name == "--box") {
      const auto box = numbers(value(), "--box", "x0,y0,x1,y1", 4, 4);
      options.boxes.insert(options.boxes.end(), box.begin(), box.end());
    } else if (name == "--bundle") {
      options.bundle = value();
    } else if (name == "-o" || name == "--output") {
      options.output = value();
    } else if (name == "--multimask") {
      options.multimask = true;
    } else if (name == "--no-enhance") {
      options.params.enhance = false;
    } else if (name == "--selftest") {
      options.selftest = true;
      options.bundle = value();
    } else if (name == "--backend") {
      options.params.backend = value();
    } else if (name == "--device") {
      options.params.device = value();
    } else if (name == "--precision") {
      options.params.precision = value();
    } else if (name == "--engine-library") {
      options.params.engine_library = value();
    } else if (name == "--threads") {
      options.params.threads = count_of(value(), name);
    } else if (name == "--help" || name == "-h") {
      options.help = true;
    } else if (name == "--version") {
      options.version = true;
    } else if (name.size() > 1 && name.front() == '-') {
      throw UsageError(name + ": no such option (--help shows the options)");
    } else if (options.image.empty()) {
      options.image = name;
    } else {
      throw UsageError(name + ": one image at a time");
    }
  }
  check(options);
  return options;
}
