#include "enhancing.h"

#include <cmath>

#include "errors.h"
#include "sha256.h"
#include "text.h"

namespace glesam {
namespace {

constexpr std::int64_t kGrid = 16;   // maximum number of rows and of columns of z_L that are used
constexpr std::int64_t kPatch = 16;  // pixels of the resized image per position of z_L

std::int64_t divided_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

// Sums `count` rows of `width` values into the first row, by adding the second half to the first
// repeatedly.
void sum_rows(std::vector<double>& values, std::size_t count, std::size_t width) {
  while (count > 1) {
    const std::size_t half = count / 2, kept = count - half;
    for (std::size_t i = 0; i < half * width; ++i) values[i] += values[kept * width + i];
    count = kept;
  }
}

// Returns the hash of a stage's graph and external weights.
std::string hash_of(const StageRecord& stage) {
  Sha256 hash;
  hash.update(stage.graph.sha256.data(), stage.graph.sha256.size());
  if (stage.data) hash.update(stage.data->sha256.data(), stage.data->sha256.size());
  return hash.hex();
}

}  // namespace

GateChoice gate_of(const Manifest& manifest, const std::string& folder, Gate wanted) {
  if (wanted != Gate::if_present && wanted != Gate::required && wanted != Gate::ignored) {
    input_error(cat("gate ", static_cast<int>(wanted), ": is not a value of Gate"));
  }
  if (wanted == Gate::ignored) return {};
  if (!manifest.gate) {
    if (wanted == Gate::if_present) return {};
    input_error(cat(folder,
                    ": has no gate to enhance by; learn one with 'glesam-calibrate gate', or "
                    "enhance always or never"));
  }
  for (const Stage stage : {Stage::encoder, Stage::enhancer}) {
    const std::string& then =
        stage == Stage::encoder ? manifest.gate->encoder : manifest.gate->enhancer;
    const std::string now = hash_of(manifest.stages.at(stage));
    if (then == now) continue;
    bundle_error(cat(folder, ": its enhancement gate was learned for another ", name_of(stage), " (",
                     then.substr(0, 12), " instead of ", now.substr(0, 12),
                     "); learn it again with 'glesam-calibrate gate', or enhance always or never"));
  }
  return manifest.gate;
}

double estimate_gain(const EnhancementGate& gate, const float* embeddings, std::int64_t side,
                     const Geometry& geometry) {
  constexpr std::size_t channels = kGateChannels;
  const std::int64_t step = divided_up(side, kGrid);
  const std::int64_t rows = divided_up(geometry.resized.height, kPatch);
  const std::int64_t columns = divided_up(geometry.resized.width, kPatch);
  std::vector<double> values;
  std::size_t count = 0;
  values.reserve(static_cast<std::size_t>(kGrid * kGrid) * channels);
  for (std::int64_t y = 0; y < rows; y += step) {
    for (std::int64_t x = 0; x < columns; x += step, ++count) {
      const float* at = embeddings + y * side + x;
      for (std::size_t c = 0; c < channels; ++c, at += side * side) values.push_back(*at);
    }
  }
  std::vector<double> sums = values;
  sum_rows(sums, count, channels);
  const auto total = static_cast<double>(count);
  std::vector<double> terms(2 * channels);
  for (std::size_t c = 0; c < channels; ++c) terms[c] = sums[c] / total;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double difference = values[i] - terms[i % channels];
    values[i] = difference * difference;
  }
  sum_rows(values, count, channels);
  for (std::size_t c = 0; c < channels; ++c) terms[channels + c] = std::sqrt(values[c] / total);
  for (std::size_t i = 0; i < terms.size(); ++i) terms[i] *= gate.weights[i];
  sum_rows(terms, terms.size(), 1);
  return terms[0] + gate.bias;
}

}  // namespace glesam
