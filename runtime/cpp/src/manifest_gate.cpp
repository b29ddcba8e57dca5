// Reads enhancement_gate, and checks its informative fields.
#include "manifest_fields.h"

#include "text.h"

namespace glesam {
namespace {

constexpr double kNoBound = std::numeric_limits<double>::infinity();
constexpr Range kNumber{-kNoBound, -1e12, 1e12, kNoBound};
constexpr Range kFraction{-kNoBound, 0, 1, kNoBound};
constexpr Range kCorrelation{-kNoBound, -1, 1, kNoBound};

void number(const Node& node) { read_number(node, kNumber); }
void fraction(const Node& node) { read_number(node, kFraction); }
void count(const Node& node) { read_integer(node, 0); }
void string(const Node& node) { read_string(node); }

void check_point(const Node& node) {
  read_object(node, {{"threshold", number},
                     {"enhanced", fraction},
                     {"hits", fraction},
                     {"false_alarms", fraction}});
}

void check_training(const Node& node) {
  read_object(node, {{"data", string},
                     {"pictures", count},
                     {"cases", count},
                     {"kinds", [](const Node& n) { read_array(n, string); }},
                     {"seed", count},
                     {"correlation", [](const Node& n) { read_number(n, kCorrelation); }},
                     {"area", fraction},
                     {"curve", [](const Node& n) { read_array(n, check_point); }}});
}

std::vector<double> read_weights(const Node& node) {
  constexpr std::size_t length = 2 * kGateChannels;
  if (node.value.kind == Json::Kind::array && node.value.items.size() != length) {
    fail(node, cat("must have ", length, " items"));
  }
  std::vector<double> weights;
  read_array(node, [&](const Node& n) { weights.push_back(read_number(n, kNumber)); });
  return weights;
}

}  // namespace

EnhancementGate read_gate(const Node& node) {
  EnhancementGate gate;
  read_object(node,
              {{"encoder", [&](const Node& n) { gate.encoder = read_sha256(n); }},
               {"enhancer", [&](const Node& n) { gate.enhancer = read_sha256(n); }},
               {"features", [](const Node& n) { read_word(n, {"channel_moments"}); }},
               {"weights", [&](const Node& n) { gate.weights = read_weights(n); }},
               {"bias", [&](const Node& n) { gate.bias = read_number(n, kNumber); }},
               {"threshold", [&](const Node& n) { gate.threshold = read_number(n, kNumber); }},
               {"target", [](const Node& n) { read_word(n, {"latent", "agreement", "iou"}); }},
               {"training", check_training}});
  return gate;
}

}  // namespace glesam
