// The tensors that pass from stage to stage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace glesam {

using Shape = std::vector<std::int64_t>;

// A float32 tensor on the host or on an engine's device.
struct Tensor {
  Shape shape;
  const float* host = nullptr;        // null on a device, and for a tensor without elements
  std::shared_ptr<const void> owner;  // owns the memory; may be null
  float* device = nullptr;            // null: on the host; else Engine::to_host copies it
};

using Tensors = std::map<std::string, Tensor>;

// Returns the number of elements. Throws std::length_error if they cannot fit in any memory.
inline std::size_t elements(const Shape& shape) {
  constexpr std::size_t kMost = SIZE_MAX / 2 / sizeof(double);
  std::size_t count = 1;
  for (const std::int64_t axis : shape) {
    if (axis < 0 || (count != 0 && static_cast<std::uint64_t>(axis) > kMost / count)) {
      throw std::length_error("a tensor beyond any memory");
    }
    count *= static_cast<std::size_t>(axis);
  }
  return count;
}

// Returns row i of a tensor's first axis, [1, ...], in the same memory.
inline Tensor row_of(const Tensor& tensor, std::size_t i) {
  Tensor row = tensor;
  row.shape.at(0) = 1;
  const std::size_t offset = i * elements(row.shape);
  if (row.host != nullptr) row.host += offset;
  if (row.device != nullptr) row.device += offset;
  return row;
}

// Returns a tensor on the host that owns `values`.
inline Tensor host_tensor(Shape shape, std::vector<float> values) {
  auto owner = std::make_shared<std::vector<float>>(std::move(values));
  const float* data = owner->data();
  return {std::move(shape), data, std::move(owner)};
}

}  // namespace glesam
