// An engine of a few lines in the place of OpenVINO, for fuzz_calls. It is fast, it is instrumented by
// the sanitizers, and it fails as the fuzzer says.
#include "fake_engine.h"

#include <cmath>
#include <limits>
#include <new>
#include <utility>

#include "engine.h"
#include "errors.h"

namespace glesam_fuzz {

std::atomic<int> failure{kNone};

}  // namespace glesam_fuzz

namespace glesam {
namespace {

class FakeEngine final : public Engine {
 public:
  explicit FakeEngine(std::map<Stage, StageRecord> stages) : stages_(std::move(stages)) {}

  const EngineDescription& describe() const override { return description_; }

  Tensors run(Stage stage, const Tensors& inputs) override {
    const int failing = glesam_fuzz::failure.exchange(glesam_fuzz::kNone);
    if (failing == glesam_fuzz::kError) backend_error("the engine failed as planned");
    if (failing == glesam_fuzz::kMemory) throw std::bad_alloc();
    // As an interrupted engine does.
    if (stop_ != nullptr) stop_->check();
    const StageRecord& record = stages_.at(stage);
    std::map<char, std::int64_t> sizes;
    for (const TensorSpec& spec : record.inputs) {
      const Tensor& given = inputs.at(spec.name);
      for (std::size_t i = 0; i < spec.shape.size(); ++i) {
        const auto [found, is_new] =
            sizes.try_emplace(spec.shape[i].symbol, given.shape.at(i));
        const std::int64_t expected =
            spec.shape[i].symbol != 0 ? found->second : spec.shape[i].size;
        if (given.shape[i] != expected) backend_error("an input of a wrong shape");
      }
      // Reads the first and the last value, so that a sanitizer sees memory that is gone. A prompt
      // that is only a mask has no points.
      const std::size_t count = elements(given.shape);
      if (count > 0) sum_ += given.host[0] + given.host[count - 1];
    }
    Tensors outputs;
    for (const TensorSpec& spec : record.outputs) {
      Shape shape;
      for (const Dimension& axis : spec.shape) {
        shape.push_back(axis.symbol != 0 ? sizes.at(axis.symbol) : axis.size);
      }
      std::vector<float> values(elements(shape));
      ++runs_;
      for (std::size_t i = 0; i < values.size(); ++i) {
        // Blobs of logits between -20 and 20, which differ from run to run.
        values[i] = 20 * std::sin(static_cast<float>((i % 64) * (1 + runs_ % 5)) / 9) *
                    std::sin(static_cast<float>(i / 64 + runs_) / 7);
      }
      if (failing == glesam_fuzz::kNotANumber) {
        values.back() = std::numeric_limits<float>::quiet_NaN();
      }
      outputs[spec.name] = host_tensor(std::move(shape), std::move(values));
    }
    return outputs;
  }

  Tensor to_host(const Tensor& tensor) override { return tensor; }

  std::unique_ptr<Engine> share() override { return std::make_unique<FakeEngine>(stages_); }

 private:
  const std::map<Stage, StageRecord> stages_;
  const EngineDescription description_{"openvino", "0", "fake", "cpu"};
  std::size_t runs_ = 0;
  float sum_ = 0;
};

}  // namespace

std::unique_ptr<Engine> load_openvino(const Bundle& bundle, const EngineOptions&,
                                      const std::vector<Stage>& stages) {
  std::map<Stage, StageRecord> records;
  for (const Stage stage : stages) records[stage] = bundle.manifest.stages.at(stage);
  return std::make_unique<FakeEngine>(std::move(records));
}

}  // namespace glesam
