// The kernels that turn a frame in GPU memory into the encoder's input, with the bits that frame.cpp,
// resample_*.cpp and preprocess.cpp compute. CUDA's compiler (NVRTC) compiles this text at run time;
// the library takes the structs from it, and the tests run the kernels on the host. So it includes
// nothing and uses only what CUDA C++ and C++17 share (docs/adr/0036-frames-on-the-gpu.md).
//
// Each thread computes the output pixels (x, y), (x, y + step), ... of its kernel's size.
#ifndef GLESAM_GPU_KERNELS_H
#define GLESAM_GPU_KERNELS_H

namespace glesam_gpu {

typedef unsigned char Byte;
typedef long long Whole;  // 64 bits

// Rows of pixels or samples, from the top row down.
struct Rows {
  const Byte* top;
  Whole stride;  // bytes
};

// What makes each output pixel of an axis: `count[i]` inputs from `first[i]` on, with the weights
// from `weights[i * span]` on.
template <typename Weight>
struct Axis {
  const int* first;
  const int* count;
  const Weight* weights;
  int span;
};

// Copies the samples of a packed format: -> RGB [height, width, 3].
struct Pick {
  Rows from;  // of the region's first pixel
  int bytes, red, green, blue;
  Byte* to;
  int width, height;
};

// Converts YUV: -> RGB [height, width, 3].
struct Convert {
  Rows luma, u, v;
  int step;            // bytes from a sample of U to the next one, and of V
  int left, top;       // the region's first pixel
  const Whole* terms;  // YuvToRgb::tables()
  int bits;            // their fraction bits
  Byte* to;
  int width, height;
};

// Resizes one axis of RGB in fixed point: -> RGB [height, width, 3].
struct ResizeBytes {
  Rows from;
  Axis<int> axis;
  int bits;  // fraction bits of a weight
  Byte* to;
  int width, height;
};

// Resizes the width of RGB exactly: -> [height, width, 3] in units of 1 / kExactUnit.
struct ResizeExactWidth {
  Rows from;
  Axis<double> axis;
  int* to;
  int width, height;
};

// The mean and the deviation of each channel.
struct Normal {
  float mean[3], deviation[3];
};

// Normalises RGB: -> planes [3, height, width], with zeros beside the image.
struct Normalise {
  Rows from;
  Normal normal;
  int image_width, image_height;
  float* to;
  int width, height;
};

// Resizes the height of what ResizeExactWidth made, and normalises it as Normalise does.
struct ResizeExactHeight {
  const int* from;  // [.., image_width, 3]
  Axis<double> axis;
  Normal normal;
  int image_width, image_height;
  float* to;
  int width, height;
};

const int kExactUnit = 1 << 17;

#if defined(__CUDACC__)
#define GLESAM_DEVICE __device__ inline
#else
#define GLESAM_DEVICE inline
#endif

GLESAM_DEVICE Byte to_byte(Whole value) {
  return static_cast<Byte>(value < 0 ? 0 : value > 255 ? 255 : value);
}

GLESAM_DEVICE Byte* pixel_at(Byte* to, int width, int x, int y) {
  return to + (static_cast<Whole>(y) * width + x) * 3;
}

GLESAM_DEVICE void compute(const Pick& a, int x, int y) {
  const Byte* from = a.from.top + y * a.from.stride + static_cast<Whole>(x) * a.bytes;
  Byte* to = pixel_at(a.to, a.width, x, y);
  to[0] = from[a.red];
  to[1] = from[a.green];
  to[2] = from[a.blue];
}

GLESAM_DEVICE void compute(const Convert& a, int x, int y) {
  const Whole column = static_cast<Whole>(a.left) + x, row = static_cast<Whole>(a.top) + y;
  const Whole chroma = column / 2 * a.step;
  const Byte u = a.u.top[row / 2 * a.u.stride + chroma], v = a.v.top[row / 2 * a.v.stride + chroma];
  const Whole *luma = a.terms, *red = luma + 256, *green_u = red + 256, *green_v = green_u + 256,
              *blue = green_v + 256;
  const Whole light = luma[a.luma.top[row * a.luma.stride + column]];
  Byte* to = pixel_at(a.to, a.width, x, y);
  to[0] = to_byte((light + red[v]) >> a.bits);
  to[1] = to_byte((light + (green_u[u] + green_v[v])) >> a.bits);
  to[2] = to_byte((light + blue[u]) >> a.bits);
}

// Sums pixels that are `step` bytes apart.
GLESAM_DEVICE void sum_bytes(const ResizeBytes& a, const Byte* from, Whole step, int at, Byte* to) {
  const int* weights = a.axis.weights + static_cast<Whole>(at) * a.axis.span;
  int red = 1 << (a.bits - 1), green = red, blue = red;
  for (int i = 0; i < a.axis.count[at]; ++i, from += step) {
    red += weights[i] * from[0];
    green += weights[i] * from[1];
    blue += weights[i] * from[2];
  }
  to[0] = to_byte(red >> a.bits);
  to[1] = to_byte(green >> a.bits);
  to[2] = to_byte(blue >> a.bits);
}

// The two resizes have types of their own, so that compute() is one name for all kernels.
struct ResizeBytesWidth : ResizeBytes {};
struct ResizeBytesHeight : ResizeBytes {};

GLESAM_DEVICE void compute(const ResizeBytesWidth& a, int x, int y) {
  const Byte* from = a.from.top + y * a.from.stride + static_cast<Whole>(a.axis.first[x]) * 3;
  sum_bytes(a, from, 3, x, pixel_at(a.to, a.width, x, y));
}

GLESAM_DEVICE void compute(const ResizeBytesHeight& a, int x, int y) {
  const Byte* from = a.from.top + a.axis.first[y] * a.from.stride + static_cast<Whole>(x) * 3;
  sum_bytes(a, from, a.from.stride, y, pixel_at(a.to, a.width, x, y));
}

// All sums of products are exact, so that neither their order nor fused operations change them.
GLESAM_DEVICE void compute(const ResizeExactWidth& a, int x, int y) {
  const double* weights = a.axis.weights + static_cast<Whole>(x) * a.axis.span;
  const Byte* from = a.from.top + y * a.from.stride + static_cast<Whole>(a.axis.first[x]) * 3;
  int* to = a.to + (static_cast<Whole>(y) * a.width + x) * 3;
  for (int c = 0; c < 3; ++c) {
    double sum = 0;
    for (int i = 0; i < a.axis.count[x]; ++i) sum += weights[i] * from[3 * i + c];
    const double rounder = 51539607552.0;  // 1.5 * 2^35: rounds to multiples of 2^-17
    to[c] = static_cast<int>(((sum + rounder) - rounder) * kExactUnit);
  }
}

GLESAM_DEVICE void write_normalised(float* to, Whole plane, Whole at, const float* values,
                                    const Normal& normal) {
  for (int c = 0; c < 3; ++c) {
    to[c * plane + at] = (values[c] - normal.mean[c]) / normal.deviation[c];
  }
}

GLESAM_DEVICE void write_zeros(float* to, Whole plane, Whole at) {
  for (int c = 0; c < 3; ++c) to[c * plane + at] = 0;
}

GLESAM_DEVICE void compute(const Normalise& a, int x, int y) {
  const Whole plane = static_cast<Whole>(a.width) * a.height,
              at = static_cast<Whole>(y) * a.width + x;
  if (x >= a.image_width || y >= a.image_height) return write_zeros(a.to, plane, at);
  const Byte* from = a.from.top + y * a.from.stride + static_cast<Whole>(x) * 3;
  const float values[3] = {static_cast<float>(from[0]), static_cast<float>(from[1]),
                           static_cast<float>(from[2])};
  write_normalised(a.to, plane, at, values, a.normal);
}

GLESAM_DEVICE void compute(const ResizeExactHeight& a, int x, int y) {
  const Whole plane = static_cast<Whole>(a.width) * a.height,
              at = static_cast<Whole>(y) * a.width + x;
  if (x >= a.image_width || y >= a.image_height) return write_zeros(a.to, plane, at);
  const double* weights = a.axis.weights + static_cast<Whole>(y) * a.axis.span;
  const Whole row = static_cast<Whole>(a.image_width) * 3;
  const int* from = a.from + a.axis.first[y] * row + static_cast<Whole>(x) * 3;
  float values[3];
  for (int c = 0; c < 3; ++c) {
    double sum = 0;
    for (int i = 0; i < a.axis.count[y]; ++i) {
      sum += weights[i] * (static_cast<double>(from[i * row + c]) / kExactUnit);
    }
    values[c] = static_cast<float>(sum);
  }
  write_normalised(a.to, plane, at, values, a.normal);
}

}  // namespace glesam_gpu

// The kernels: a name, and the struct of its arguments.
#define GLESAM_KERNELS(KERNEL)                          \
  KERNEL(glesam_pick, Pick)                             \
  KERNEL(glesam_convert, Convert)                       \
  KERNEL(glesam_resize_width, ResizeBytesWidth)         \
  KERNEL(glesam_resize_height, ResizeBytesHeight)       \
  KERNEL(glesam_resize_exact_width, ResizeExactWidth)   \
  KERNEL(glesam_resize_exact_height, ResizeExactHeight) \
  KERNEL(glesam_normalise, Normalise)

#if defined(__CUDACC__)
// A grid has at most 65,535 blocks in y, so a thread may have several rows.
#define GLESAM_GLOBAL(name, Arguments)                                                 \
  extern "C" __global__ void name(const glesam_gpu::Arguments a) {                     \
    const long long x = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; \
    const long long step = static_cast<long long>(gridDim.y) * blockDim.y;             \
    if (x >= a.width) return;                                                          \
    for (long long y = static_cast<long long>(blockIdx.y) * blockDim.y + threadIdx.y;  \
         y < a.height; y += step) {                                                    \
      glesam_gpu::compute(a, static_cast<int>(x), static_cast<int>(y));                \
    }                                                                                  \
  }
GLESAM_KERNELS(GLESAM_GLOBAL)
#endif

#endif
