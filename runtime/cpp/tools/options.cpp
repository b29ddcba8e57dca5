#include "options.h"

#include <charconv>

const char* const kHelp =
    "Usage: glesam-cpp IMAGE --points X,Y[,LABEL] ... --bundle DIR [-o DIR]\n"
    "       glesam-cpp --selftest DIR\n"
    "\n"
    "Segments IMAGE with a GleSAM bundle and writes <stem>_mask.png, or <stem>_mask_0.png,\n"
    "<stem>_mask_1.png and so on if there are several masks (_mask_00.png for more than ten).\n"
    "IMAGE is a JPEG, PNG, BMP or TGA file; its EXIF orientation is not applied.\n"
    "\n"
    "  --points X,Y[,LABEL]   Add a point to the prompt, in pixels. Label 1 (default) marks the\n"
    "                         object, 0 the background. Repeat it to add more points.\n"
    "  --box X0,Y0,X1,Y1      Prompt with a box, in pixels. Each box is a separate object; one "
    "box\n"
    "                         can be combined with points.\n"
    "  --bundle DIR           The bundle folder. Required.\n"
    "  -o, --output DIR       The folder for the masks. Default: the current folder.\n"
    "  --multimask            Write three candidate masks per prompt instead of one.\n"
    "  --enhance WHEN         auto: enhance the image if the bundle's gate estimates a gain; always;\n"
    "                         never. Default: auto for a bundle with a gate, else always.\n"
    "  --no-enhance           Same as --enhance never: plain SAM.\n"
    "  --selftest DIR         Compare this machine's results with the bundle's golden file.\n"
    "  --backend NAME         auto (default) or a backend that --version lists.\n"
    "  --device NAME          cpu, cuda or cuda:N; with OpenVINO also gpu or gpu:N. Default: the\n"
    "                         backend's default.\n"
    "  --precision NAME       bf16 or fp16 inside OpenVINO. Default: the graphs' precision.\n"
    "  --engine-library FILE  The engine's library, if the dynamic loader does not find it.\n"
    "  --threads N            The number of engine threads. Default: the engine's default.\n"
    "  --help, --version      Print this text, or the version and the compiled backends.\n"
    "\n"
    "Exit codes: 0 success, 1 the self-test failed, 2 an error.\n";

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
    throw UsageError(std::string(option) + " " + text + ": must be " + form + " in pixels");
  }
  return values;
}

int count_of(const std::string& text, const std::string& option) {
  int value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size() || value < 1) {
    throw UsageError(option + " " + text + ": must be a whole number of at least 1");
  }
  return value;
}

void check(const Options& options) {
  if (options.help || options.version) return;
  const bool prompted = !options.labels.empty() || !options.boxes.empty();
  if (options.selftest) {
    if (prompted || !options.image.empty()) {
      throw UsageError("--selftest cannot be combined with an image or prompts");
    }
    return;
  }
  if (options.image.empty()) throw UsageError("no image: pass an image file (see --help)");
  if (options.bundle.empty()) throw UsageError("no bundle: pass --bundle DIR");
  if (!prompted) throw UsageError("no prompt: pass --points or --box");
  if (!options.labels.empty() && options.boxes.size() > 4) {
    throw UsageError("--points with several --box: run the program once per object");
  }
}

}  // namespace

Options parse_options(const std::vector<std::string>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    const auto value = [&]() -> const std::string& {
      if (i + 1 == arguments.size()) throw UsageError(name + ": needs a value");
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
    } else if (name == "--enhance") {
      const std::string& when = value();
      if (when != "auto" && when != "always" && when != "never") {
        throw UsageError("--enhance " + when + ": must be auto, always or never");
      }
      options.params.enhance = when != "never";
      options.params.gate = when == "auto" ? glesam::Gate::required : glesam::Gate::ignored;
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
      throw UsageError(name + ": no such option (see --help)");
    } else if (options.image.empty()) {
      options.image = name;
    } else {
      throw UsageError(name + ": pass only one image");
    }
  }
  check(options);
  return options;
}
