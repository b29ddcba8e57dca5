// Reads enhancement_gate, and checks its informative fields.
#include "manifest_fields.h"
#include "text.h"

namespace glesam {
namespace {

constexpr Range kNumber{-kUnbounded, -1e12, 1e12, kUnbounded};
constexpr Range kCorrelation{-kUnbounded, -1, 1, kUnbounded};

void check_point(const Node& node) {
  read_object(node, {{"threshold", checked(number(kNumber))},
                     {"enhanced", checked(number(kFraction))},
                     {"hits", checked(number(kFraction))},
                     {"false_alarms", checked(number(kFraction))}});
}

void check_training(const Node& node) {
  read_object(node, {{"data", checked(read_string)},
                     {"pictures", checked(integer(0))},
                     {"cases", checked(integer(0))},
                     {"kinds", checked_list(read_string)},
                     {"seed", checked(integer(0))},
                     {"correlation", checked(number(kCorrelation))},
                     {"area", checked(number(kFraction))},
                     {"curve", checked_list(check_point)}});
}

std::vector<double> read_weights(const Node& node) {
  std::vector<double> weights;
  const auto read = [&](const Node& n) { weights.push_back(read_number(n, kNumber)); };
  read_array(node, read, 2 * kGateChannels);
  return weights;
}

}  // namespace

EnhancementGate read_gate(const Node& node) {
  EnhancementGate gate;
  read_object(node, {{"encoder", into(gate.encoder, read_sha256)},
                     {"enhancer", into(gate.enhancer, read_sha256)},
                     {"features", checked(word({"channel_moments"}))},
                     {"weights", into(gate.weights, read_weights)},
                     {"bias", into(gate.bias, number(kNumber))},
                     {"threshold", into(gate.threshold, number(kNumber))},
                     {"target", checked(word({"latent", "agreement", "iou"}))},
                     {"training", check_training}});
  return gate;
}

}  // namespace glesam
