#include "gpu_frames.h"

#include <algorithm>

#include "errors.h"
#include "preprocess.h"
#include "text.h"
#include "yuv.h"

namespace glesam {
namespace {

using glesam_gpu::Axis;
using glesam_gpu::Rows;

// cuda.h's CU_POINTER_ATTRIBUTE_MEMORY_TYPE, _DEVICE_POINTER, _IS_MANAGED and _DEVICE_ORDINAL.
constexpr int kMemoryType = 2, kDevicePointer = 3, kIsManaged = 8, kDeviceOrdinal = 9;
constexpr unsigned kOnDevice = 2;  // CU_MEMORYTYPE_DEVICE

constexpr unsigned kNotWithTheDefaultStream = 1;  // CU_STREAM_NON_BLOCKING
constexpr unsigned kWithoutTiming = 2;            // CU_EVENT_DISABLE_TIMING

// A camera's frames need a few; frames of ever new sizes must not fill the memory.
constexpr std::size_t kMostAxes = 16;

template <typename Value>
std::size_t bytes_of(const std::vector<Value>& values) {
  return values.size() * sizeof(Value);
}

std::vector<int> narrowed(const std::vector<std::int64_t>& values) {
  std::vector<int> narrow;
  for (const std::int64_t value : values) narrow.push_back(static_cast<int>(value));
  return narrow;
}

Taps<std::int32_t> taps_of(std::int64_t in, std::int64_t out, FixedPoint kernel, std::int32_t) {
  return fixed_point_taps(in, out, kernel);
}
Taps<double> taps_of(std::int64_t in, std::int64_t out, FixedPoint, double) {
  return exact_taps(in, out);
}

}  // namespace

GpuFrames::GpuFrames(std::shared_ptr<const GpuProgram> program) : program_(std::move(program)) {
  const GpuDriver::Current current(driver());
  driver().require(driver().stream_create(&stream_, kNotWithTheDefaultStream), "creating a stream");
}

GpuFrames::~GpuFrames() {
  abandon();
  try {
    const GpuDriver::Current current(driver());
    driver().stream_destroy(stream_);
  } catch (const std::exception&) {
    // A GPU whose context cannot be used any more has no stream to destroy.
  }
}

void GpuFrames::abandon() noexcept {
  try {
    const GpuDriver::Current current(driver());
    driver().stream_synchronize(stream_);
  } catch (const std::exception&) {
    // A GPU whose context cannot be used any more does no work.
  }
}

void GpuFrames::wait() {
  driver().require(driver().stream_synchronize(stream_), "reading a frame");
}

template <typename Value>
Value* GpuFrames::Scratch::at_least(GpuFrames& frames, std::size_t count) {
  const std::size_t bytes = count * sizeof(Value);
  if (!memory_ || memory_->bytes() < bytes) {
    frames.wait();  // for the work that uses the memory which is freed here
    memory_.reset();
    memory_ = std::make_shared<GpuMemory>(frames.program_->driver(), bytes);
  }
  return memory_->as<Value>();
}

// Makes the work on this session's stream start after the work on the frame's stream.
void GpuFrames::wait_for(const Frame& frame) {
  GpuEvent event = nullptr;
  driver().require(driver().event_create(&event, kWithoutTiming), "creating an event");
  int code = driver().event_record(event, frame.stream);
  if (code == 0) code = driver().stream_wait_event(stream_, event, 0);
  driver().event_destroy(event);  // the driver keeps it until it has happened
  driver().require(code, "waiting for the frame's stream");
}

// Returns how many bytes from an address on are allocated. Memory that is mapped in pieces has a range
// for each. Returns nothing for memory whose size the driver does not know, such as the host's.
std::optional<std::size_t> GpuFrames::allocated_from(GpuAddress address, std::size_t wanted) const {
  GpuAddress begin = 0, at = address;
  std::size_t size = 0;
  while (at - address < wanted && driver().get_address_range(&begin, &size, at) == 0) {
    at = begin + size;
  }
  return at == address ? std::nullopt : std::optional<std::size_t>(at - address);
}

// Returns the rows at the address by which kernels read them. A kernel that reads elsewhere would
// make the GPU unusable for the whole process, so the planes are checked before.
Rows GpuFrames::readable(const PlaneBytes& bytes, const PlaneRows& rows, std::size_t plane) const {
  const auto address = static_cast<GpuAddress>(reinterpret_cast<std::uintptr_t>(bytes.first));
  GpuAddress seen = 0;
  if (driver().pointer_get_attribute(&seen, kDevicePointer, address) != 0) {
    input_error(
        cat("image: plane ", plane, " is not in memory that CUDA device ", driver().device(),
            " can read; pass memory of its primary context, which the CUDA runtime uses, or "
            "say that it is the host's"));
  }
  // Memory of the host, and managed memory, can be read from every device.
  unsigned type = 0, managed = 0;
  int device = 0;
  driver().pointer_get_attribute(&type, kMemoryType, address);
  driver().pointer_get_attribute(&managed, kIsManaged, address);
  if (type == kOnDevice && managed == 0 &&
      driver().pointer_get_attribute(&device, kDeviceOrdinal, address) == 0 &&
      device != driver().device()) {
    input_error(cat("image: plane ", plane, " is in the memory of CUDA device ", device,
                    ", but the graphs run on device ", driver().device()));
  }
  const std::optional<std::size_t> allocated = allocated_from(seen, bytes.count);
  if (allocated && *allocated < bytes.count) {
    input_error(cat("image: plane ", plane, " needs ", bytes.count, " bytes, but only ", *allocated,
                    " are allocated there; check its size and stride"));
  }
  const std::ptrdiff_t offset = rows.top - bytes.first;
  const auto* first = reinterpret_cast<const std::uint8_t*>(static_cast<std::uintptr_t>(seen));
  return {first + offset, rows.stride};
}

// Copies to the GPU. The host's memory may be freed after the call.
void GpuFrames::upload(GpuAddress to, const void* from, std::size_t bytes) {
  driver().require(driver().copy_from_host(to, from, bytes, stream_), "copying to the GPU");
  wait();
}

const glesam_gpu::Whole* GpuFrames::terms_of(YuvMatrix matrix, YuvRange range) {
  std::unique_ptr<GpuMemory>& terms = terms_[{matrix, range}];
  if (!terms) {
    const std::vector<std::int64_t> tables = YuvToRgb(matrix, range).tables();
    auto made = std::make_unique<GpuMemory>(program_->driver(), bytes_of(tables));
    upload(made->address(), tables.data(), bytes_of(tables));
    terms = std::move(made);
  }
  return terms->as<const glesam_gpu::Whole>();
}

// Returns the RGB pixels of a frame's region: in the frame's own memory if that is RGB.
Rows GpuFrames::to_rgb(const Frame& frame, const CheckedFrame& checked) {
  const Region& region = checked.region;
  const std::vector<PlaneBytes> bytes = plane_bytes(frame);
  Rows planes[3]{};
  for (std::size_t i = 0; i < bytes.size(); ++i)
    planes[i] = readable(bytes[i], checked.planes[i], i);
  wait_for(frame);
  const auto pixel = packed_pixel(frame.format);
  if (pixel) {
    planes[0].top += region.y * planes[0].stride + std::ptrdiff_t{region.x} * pixel->bytes;
    if (frame.format == Format::rgb) return planes[0];
  }
  const std::int64_t row = std::int64_t{region.width} * 3;
  auto* to = rgb_.at_least<std::uint8_t>(*this, elements({region.height, row}));
  if (pixel) {
    program_->launch(glesam_gpu::Pick{planes[0], pixel->bytes, pixel->red, pixel->green,
                                      pixel->blue, to, region.width, region.height},
                     stream_);
  } else {
    const bool interleaved = frame.format == Format::nv12;
    if (interleaved) planes[2] = {planes[1].top + 1, planes[1].stride};
    program_->launch(glesam_gpu::Convert{planes[0], planes[1], planes[2], interleaved ? 2 : 1,
                                         region.x, region.y, terms_of(frame.matrix, frame.range),
                                         YuvToRgb::kBits, to, region.width, region.height},
                     stream_);
  }
  return {to, row};
}

template <typename Weight>
GpuFrames::DeviceAxis GpuFrames::uploaded(const Taps<Weight>& taps) {
  const std::vector<int> first = narrowed(taps.first), count = narrowed(taps.count);
  const std::size_t whole = bytes_of(taps.weights) + bytes_of(first) + bytes_of(count);
  DeviceAxis axis{std::make_unique<GpuMemory>(program_->driver(), whole), taps.weights.size(),
                  first.size(), static_cast<int>(taps.span)};
  GpuAddress to = axis.memory->address();
  const auto copy = [&](const auto& values) {
    upload(to, values.data(), bytes_of(values));
    to += bytes_of(values);
  };
  copy(taps.weights);
  copy(first);
  copy(count);
  return axis;
}

template <typename Weight>
Axis<Weight> GpuFrames::axis_of(std::int64_t size_in, std::int64_t size_out, Filter filter) {
  const auto key = std::make_tuple(size_in, size_out, filter);
  auto found = axes_.find(key);
  if (found == axes_.end()) {
    if (axes_.size() >= kMostAxes) {
      wait();  // for the work that uses them
      axes_.clear();
    }
    const auto kernel = filter == Filter::bicubic ? FixedPoint::bicubic : FixedPoint::bilinear;
    found = axes_.emplace(key, uploaded(taps_of(size_in, size_out, kernel, Weight{}))).first;
  }
  const DeviceAxis& axis = found->second;
  const auto* weights = axis.memory->as<const Weight>();
  const auto* first = reinterpret_cast<const int*>(weights + axis.weights);
  return {first, first + axis.outputs, weights, axis.span};
}

// Does what resize_fixed_point does.
Rows GpuFrames::resize_bytes(Rows from, Size size, Size wanted, Filter filter, Scratch& half,
                             Scratch& whole) {
  const auto along = [&](bool width, Scratch& scratch) {
    const Size made = width ? Size{size.height, wanted.width} : Size{wanted.height, size.width};
    auto* to = scratch.at_least<std::uint8_t>(*this, elements({made.height, made.width, 3}));
    const Axis<int> axis = width ? axis_of<int>(size.width, made.width, filter)
                                 : axis_of<int>(size.height, made.height, filter);
    const auto columns = static_cast<int>(made.width), rows = static_cast<int>(made.height);
    const glesam_gpu::ResizeBytes arguments{from, axis, kFixedPointBits, to, columns, rows};
    if (width) {
      program_->launch(glesam_gpu::ResizeBytesWidth{arguments}, stream_);
    } else {
      program_->launch(glesam_gpu::ResizeBytesHeight{arguments}, stream_);
    }
    from = {to, made.width * 3};
    size = made;
  };
  const bool width_first = !resizes_height_first(size, wanted);
  for (const bool width : {width_first, !width_first}) {
    const bool same = width ? size.width == wanted.width : size.height == wanted.height;
    if (!same) along(width, width == width_first ? half : whole);
  }
  return from;
}

void GpuFrames::begin(std::size_t rows, const Preprocessing& rules) {
  const GpuDriver::Current current(driver());
  wait();  // for what a call that failed has left
  shape_ = {static_cast<std::int64_t>(rows), 3, rules.image_size, rules.image_size};
  const std::size_t bytes = elements(shape_) * sizeof(float);
  if (tensor_ && tensor_->bytes() == bytes) return;
  tensor_.reset();
  auto made = std::make_shared<GpuMemory>(program_->driver(), bytes);
  // Rows that no frame fills are zeros or an earlier frame. Nothing uses what becomes of them.
  driver().require(driver().fill(made->address(), 0, bytes, stream_), "preparing a tensor");
  tensor_ = std::move(made);
}

Geometry GpuFrames::add(std::size_t row, const Frame& frame, const Preprocessing& rules,
                        const Limits& limits) {
  const CheckedFrame checked = check_frame(frame, limits);
  const GpuDriver::Current current(driver());
  Rows rows = to_rgb(frame, checked);
  Size size{checked.region.height, checked.region.width};
  const Geometry geometry = geometry_of(size, rules);
  if (rules.first_size != 0) {
    const Size square{rules.first_size, rules.first_size};
    rows = resize_bytes(rows, size, square, Filter::bicubic, first_half_, first_);
    size = square;
  }
  const Size made = geometry.resized;
  const auto side = static_cast<int>(rules.image_size);
  const auto width = static_cast<int>(made.width), height = static_cast<int>(made.height);
  float* to = tensor_->as<float>() + row * elements({3, side, side});
  glesam_gpu::Normal normal{};
  std::copy_n(rules.mean, 3, normal.mean);
  std::copy_n(rules.std, 3, normal.deviation);
  if (rules.float_kernel) {
    auto* wide = exact_.at_least<int>(*this, elements({size.height, made.width, 3}));
    program_->launch(
        glesam_gpu::ResizeExactWidth{rows, axis_of<double>(size.width, made.width, Filter::exact),
                                     wide, width, static_cast<int>(size.height)},
        stream_);
    program_->launch(
        glesam_gpu::ResizeExactHeight{wide,
                                      axis_of<double>(size.height, made.height, Filter::exact),
                                      normal, width, height, to, side, side},
        stream_);
  } else {
    rows = resize_bytes(rows, size, made, Filter::bilinear, half_, whole_);
    program_->launch(glesam_gpu::Normalise{rows, normal, width, height, to, side, side}, stream_);
  }
  return geometry;
}

Tensor GpuFrames::finish() {
  const GpuDriver::Current current(driver());
  wait();
  return {shape_, nullptr, tensor_, tensor_->as<float>()};
}

}  // namespace glesam
