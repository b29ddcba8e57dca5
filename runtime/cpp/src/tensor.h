// What flows between the stages.
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

// A float32 tensor on the host, or one that an engine left where it computed it.
struct Tensor {
  Shape shape;
  const float* host = nullptr;        // null: on a device, read through its engine
  std::shared_ptr<const void> owner;  // keeps what `host` or the engine points to; may be null
};

using Tensors = std::map<std::string, Tensor>;

// Number of elements. Throws std::length_error beyond any memory.
inline std::size_t elements(const Shape& shape) {
  std::size_t count = 1;
  for (const std::int64_t axis : shape) {
    if (axis < 0 || __builtin_mul_overflow(count, static_cast<std::size_t>(axis), &count) ||
        count > SIZE_MAX / 2 / sizeof(double)) {
      throw std::length_error("a tensor beyond any memory");
    }
  }
  return count;
}

inline Tensor host_tensor(Shape shape, std::vector<float> values) {
  auto owner = std::make_shared<std::vector<float>>(std::move(values));
  const float* data = owner->data();
  return {std::move(shape), data, std::move(owner)};
}

}  // namespace glesam
