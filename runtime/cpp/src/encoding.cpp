#include "encoding.h"

#include <algorithm>
#include <utility>

#include "chain.h"
#include "errors.h"
#include "preprocess.h"
#include "text.h"

namespace glesam {
namespace {

// Returns how many of `count` images a run of encoder and enhancer can take.
std::size_t batch_of(const Manifest& manifest, std::size_t count) {
  if (manifest.target.batch != 0) return static_cast<std::size_t>(manifest.target.batch);
  for (const Stage stage : {Stage::encoder, Stage::enhancer}) {
    const auto& profile = manifest.stages.at(stage).profile;
    if (const auto range = profile.find('N'); range != profile.end()) {
      count =
          std::min(count, static_cast<std::size_t>(std::max<std::int64_t>(range->second.max, 1)));
    }
  }
  return count;
}

Tensors row_of(const Tensors& features, std::size_t i) {
  Tensors row;
  for (const auto& [name, tensor] : features) row[name] = row_of(tensor, i);
  return row;
}

// Adds to an error of bad input which frame it is about.
template <typename Work>
auto about_frame(bool numbered, std::size_t index, Work&& work) {
  try {
    return work();
  } catch (const Error& error) {
    if (!numbered || error.code() != Code::invalid_input) throw;
    throw Error(error.code(), cat("frame ", index, ": ", error.message()));
  }
}

}  // namespace

FrameEncoder::FrameEncoder(std::shared_ptr<const SharedContext> context,
                           std::shared_ptr<Engine> engine, Timings& timings, Stop& stop)
    : context_(std::move(context)), engine_(std::move(engine)), timings_(timings), stop_(stop) {}

FrameEncoder::Input FrameEncoder::prepared(const Frame* frames, std::size_t count) {
  if (frames[0].memory == Memory::cuda) return prepared_on_gpu(frames, count);
  const std::int64_t rows = rows_for(manifest(), static_cast<std::int64_t>(count));
  const std::int64_t size = manifest().preprocessing.image_size;
  Input input;
  std::vector<float> image;
  for (std::size_t i = 0; i < count; ++i) {
    stop_.check();
    Preprocessed one = about_frame(numbered_, first_ + i, [&] {
      return preprocess(frames[i], manifest().preprocessing, limits());
    });
    input.geometries.push_back(one.geometry);
    if (i == 0) {
      image = std::move(one.tensor);
    } else {
      image.insert(image.end(), one.tensor.begin(), one.tensor.end());
    }
  }
  const Shape shape{rows, 3, size, size};
  image.resize(elements(shape));  // with zeros in the rows that no frame fills
  input.image = host_tensor(shape, std::move(image));
  return input;
}

FrameEncoder::Input FrameEncoder::prepared_on_gpu(const Frame* frames, std::size_t count) {
  const std::optional<int> device = engine_->cuda_device();
  if (!device) {
    input_error(cat("image: a frame in CUDA memory, but ", context_->info.engine, " on ",
                    context_->info.device, " reads the host's; use a backend on that GPU"));
  }
  if (!gpu_) gpu_ = std::make_unique<GpuFrames>(context_->gpu_program(*device));
  Input input;
  const std::int64_t rows = rows_for(manifest(), static_cast<std::int64_t>(count));
  gpu_->begin(static_cast<std::size_t>(rows), manifest().preprocessing);
  try {
    for (std::size_t i = 0; i < count; ++i) {
      stop_.check();
      input.geometries.push_back(about_frame(numbered_, first_ + i, [&] {
        return gpu_->add(i, frames[i], manifest().preprocessing, limits());
      }));
    }
    input.image = gpu_->finish();
  } catch (...) {
    gpu_->abandon();  // nothing reads the caller's frames after the call
    throw;
  }
  return input;
}

FrameEncoder::Decisions FrameEncoder::decided(const Tensors& features,
                                              const std::vector<Geometry>& geometries) {
  Decisions decisions(geometries.size(), {context_->params.enhance, false, 0});
  const GateChoice& gate = context_->gate;
  if (!gate) return decisions;
  const Timer timer(timings_.gate);
  const Tensor host = engine_->to_host(features.at(kEmbeddings));
  for (std::size_t i = 0; i < decisions.size(); ++i) {
    Decision& decision = decisions[i];
    decision.estimate = estimate_gain(*gate, row_of(host, i).host, host.shape.at(3), geometries[i]);
    decision.estimated = true;
    decision.enhanced = decision.estimate > gate->threshold;
  }
  return decisions;
}

// Returns the features of each image, and enhances those for which it was decided.
std::vector<Tensors> FrameEncoder::enhanced(const Tensors& features, const Decisions& decisions) {
  const auto is_chosen = [](const Decision& each) { return each.enhanced; };
  const bool any = std::any_of(decisions.begin(), decisions.end(), is_chosen);
  const bool all = std::all_of(decisions.begin(), decisions.end(), is_chosen);
  std::vector<Tensors> images;
  for (std::size_t i = 0; i < decisions.size(); ++i) images.push_back(row_of(features, i));
  if (!any) return images;
  const Timer timer(timings_.enhancer);
  // A batch of a fixed size costs the same for one image as for all.
  if (all || manifest().target.batch != 0) {
    const Tensors clean = enhance(*engine_, manifest(), features);
    for (std::size_t i = 0; i < images.size(); ++i) {
      if (decisions[i].enhanced) images[i] = row_of(clean, i);
    }
  } else {
    for (std::size_t i = 0; i < images.size(); ++i) {
      if (decisions[i].enhanced) images[i] = enhance(*engine_, manifest(), images[i]);
    }
  }
  engine_->finish();
  return images;
}

void FrameEncoder::encode_batch(const Frame* frames, std::size_t count, Images& images) {
  Input input;
  {
    const Timer timer(timings_.preprocess);
    input = prepared(frames, count);
  }
  stop_.check();
  Tensors features;
  {
    const Timer timer(timings_.encoder);
    features = glesam::encode(*engine_, manifest(), input.image);
    engine_->finish();
  }
  stop_.check();
  timings_.gate = timings_.enhancer = 0;
  const Decisions decisions = decided(features, input.geometries);
  std::vector<Tensors> each = enhanced(features, decisions);
  stop_.check();
  for (std::size_t i = 0; i < count; ++i) {
    const Geometry& geometry = input.geometries[i];
    images.push_back(std::make_shared<const ImageState>(
        ImageState{context_, engine_, geometry, decisions[i], std::move(each[i]),
                   Upscaler(geometry, manifest().postprocessing)}));
  }
}

FrameEncoder::Images FrameEncoder::encode(const Frame* frames, std::size_t count) {
  if (count == 0) input_error("frames: none; pass at least one");
  for (std::size_t i = 1; i < count; ++i) {
    if (frames[i].memory == frames[0].memory) continue;
    input_error(
        cat("frame ", i, ": in another kind of memory than frame 0; pass them in two calls"));
  }
  numbered_ = count > 1;
  Images images;
  const std::size_t batch = batch_of(manifest(), count);
  for (first_ = 0; first_ < count; first_ += batch) {
    encode_batch(frames + first_, std::min(batch, count - first_), images);
  }
  return images;
}

}  // namespace glesam
