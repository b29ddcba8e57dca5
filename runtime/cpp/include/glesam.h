// The C++ API of the GleSAM runtime. It opens a bundle and turns an image and prompts into masks.
// It needs no Python and no image library: images are raw pixels, also in the formats of cameras.
//
// Usage:
//
//     glesam::Params params = glesam::default_params();
//     std::unique_ptr<glesam::Predictor> predictor;
//     glesam::Status status = glesam::Predictor::open("bundle", params, &predictor);
//     if (!status) { std::cerr << status.message << "\n"; return 2; }
//
//     status = predictor->set_image({rgb, width, height});   // runs encoder and enhancer once
//     const double point[] = {120, 80};                      // x, y in pixels of the image
//     const float label[] = {1};                             // 1: object, 0: background
//     glesam::Prompts prompts;
//     prompts.points = point;
//     prompts.labels = label;
//     prompts.points_per_prompt = 1;
//     glesam::Prediction result;
//     status = predictor->predict(prompts, {}, &result);     // repeat for more prompts
//     // result.masks: width * height bytes of 0 and 1
//
// Errors. No function throws. A function that can fail returns a Status, which converts to true on
// success. Its message is one line that says what is wrong, where, and what to do. A function that
// fails does not change its output arguments, and a set_image that fails keeps the previous image.
//
// Threads. The library has no global state. A Context owns the loaded model. A Predictor is a session
// of it: it owns one image and accepts one call at a time. Create one for each thread, by
// Context::create_session or Predictor::share. A call during a call of another thread returns
// Code::busy and does nothing. Different predictors may run at the same time. The engine starts its
// own threads; Params::threads limits their number, and Params::streams says how many runs they
// serve at the same time.
//
// Ownership. The library reads the pointers in Image, Frame and Prompts only during the call. Results
// are values that the caller owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "glesam_export.h"
#include "glesam_version.h"

namespace glesam {

enum class Code {
  ok = 0,
  invalid_input = 1,  // an image, a prompt or an argument cannot be used
  bad_bundle = 2,     // the folder is incomplete, altered, too new, or not a bundle
  backend = 3,        // the engine is missing, cannot run here, or cannot load a graph
  out_of_memory = 4,  // use a smaller image or fewer prompts per call
  internal = 5,       // a bug in this library
  busy = 6,           // another thread is using this predictor; give each thread its own
  cancelled = 7,      // Predictor::cancel ended the call
  timeout = 8,        // the call took longer than Predictor::set_timeout allows
};

// The outcome of a call.
struct Status {
  Code code = Code::ok;
  std::string message;  // one line; empty on success
  explicit operator bool() const noexcept { return code == Code::ok; }
};

// The largest inputs that are accepted, so that a mistaken or hostile one ends with a message
// instead of using all memory. The figures are those of the Python runtime. Raise one if your
// inputs exceed it and there is memory for them. 0 means the default.
struct Limits {
  std::size_t side = 16'777'216;  // pixels per side of an image
  std::size_t megapixels = 512;   // of an image; one has 1024 x 1024 pixels
  std::size_t points = 4096;      // per prompt; the decoder's memory grows with the square of them
  std::size_t prompts = 10'000;   // per call
  std::size_t json_mib = 32;      // MiB of manifest.json, and of the header of golden.safetensors
  std::size_t golden_mib = 512;   // MiB of golden.safetensors, which selftest() reads
};

// Which images are enhanced, if Params::enhance is true. A bundle may have a gate: a rule, learned by
// glesam-calibrate gate, that estimates from the encoder's output what the enhancer gains.
enum class Gate {
  if_present = 0,  // those that the bundle's gate chooses; every image if it has none
  required = 1,    // those that the gate chooses; a bundle without one is an error
  ignored = 2,     // every image
};

// The importance of a log message.
enum class LogLevel { debug = 0, info = 1, warning = 2, error = 3 };

// Options for opening a bundle. Get the defaults from default_params().
struct Params {
  std::string backend;         // "auto" (default), "openvino", "onnxruntime" or "tensorrt"
  std::string device;          // "cpu", "cuda", "cuda:1"; OpenVINO: "cpu", "gpu", "gpu:1", "npu";
                               // empty: the backend's default
  std::string precision;       // OpenVINO only: "bf16" or "fp16" inside the engine;
                               // empty: the precision of the graphs
  std::string engine_library;  // path of libonnxruntime or libnvinfer;
                               // empty: the dynamic loader searches for it
  int threads = 0;             // engine threads, at most 8 per core; 0: the engine's default
  bool enhance = true;         // false: skip the enhancer, which is plain SAM; it is not loaded

  // Maximum number of prompts per run of the decoder. A call with more prompts runs it several
  // times and takes no more memory for it. 0: 8 on a CPU and 64 on other devices, as in Python. The
  // profile of a compiled decoder can lower it.
  std::size_t max_prompt_batch = 0;
  Limits limits;
  Gate gate = Gate::if_present;

  // OpenVINO only: number of runs that the engine does at the same time. They share the CPU threads:
  // more streams raise both throughput and latency. Sessions beyond it wait for each other. 0: 1
  int streams = 0;

  // Called with what happens: opened bundles, duration of calls, errors. Any thread of a session may
  // call it, several at the same time. Its exceptions are ignored.
  std::function<void(LogLevel level, const std::string& message)> log;
};

// Returns the default options.
GLESAM_API Params default_params();

// Returns the names of the backends that this library was compiled with. "auto" uses the first of
// them that can read the bundle's graphs.
GLESAM_API std::vector<std::string> backends();

// Returns the version of this library, such as "0.1.0". The string is static.
GLESAM_API const char* version() noexcept;

// An RGB image in memory: 8 bits per channel, channels interleaved, top row first.
struct Image {
  const std::uint8_t* rgb = nullptr;
  int width = 0;           // pixels
  int height = 0;          // pixels; see Limits for the largest image
  std::size_t stride = 0;  // bytes from one row to the next, at most 2^31 - 1; 0 means 3 * width.
                           // A Frame can have a negative stride (bottom row first)
};

// How the bytes of a frame are arranged. Each sample has 8 bits.
enum class Format {
  rgb = 0,
  bgr = 1,
  rgba = 2,  // the fourth byte of each pixel is ignored
  bgra = 3,  // the fourth byte of each pixel is ignored
  gray = 4,
  nv12 = 5,  // two planes: Y, and U and V in turns. Each U and V covers 2 x 2 pixels
  i420 = 6,  // three planes: Y, U, V. Each U and V covers 2 x 2 pixels
};

// The coefficients of a YUV format: Recommendation ITU-R BT.601, BT.709 or BT.2020. Their Kr and Kb
// are 0.299 and 0.114, 0.2126 and 0.0722, 0.2627 and 0.0593.
enum class YuvMatrix { bt601 = 0, bt709 = 1, bt2020 = 2 };

// limited: Y from 16 to 235, U and V from 16 to 240. full: all from 0 to 255, as in JPEG files.
enum class YuvRange { limited = 0, full = 1 };

// Where the bytes of a frame are.
enum class Memory {
  host = 0,
  cuda = 1,  // in the primary context of the CUDA device that runs the graphs, which the CUDA runtime
             // uses: memory from cudaMalloc, or mapped memory. Rows are in order (pitch linear)
};

// A rectangle of pixels. All zeros mean the whole frame.
struct Region {
  int x = 0, y = 0, width = 0, height = 0;
};

// A frame of a camera or a video decoder.
//
// The result is that of converting the frame to RGB first. YUV becomes RGB by this formula, without
// rounding on the way; the sums are then rounded to the nearest integer, one half upwards, and
// clamped to 0..255. With y = 255 / 219 * (Y - 16), u = 255 / 224 * (U - 128) and v = 255 / 224 * (V
// - 128), or y = Y, u = U - 128 and v = V - 128 in the full range, and Kg = 1 - Kr - Kb:
//
//     R = y + 2 * (1 - Kr) * v
//     G = y - 2 * (1 - Kb) * Kb / Kg * u - 2 * (1 - Kr) * Kr / Kg * v
//     B = y + 2 * (1 - Kb) * u
//
// U and V are not interpolated: all pixels that a sample covers have its value.
struct Frame {
  Format format = Format::rgb;
  int width = 0;                                                // pixels; may be odd in all formats
  int height = 0;                                               // pixels; may be odd too
  const std::uint8_t* planes[3] = {nullptr, nullptr, nullptr};  // the top row of each plane
  std::ptrdiff_t strides[3] = {0, 0, 0};  // bytes from a row of a plane to the next lower one: at
                                          // least a row, and at most 2^31 - 1. Negative: the rows
                                          // are stored bottom first. 0: the bytes of a row
  Region region;  // the part that becomes the image; points, boxes and masks are relative to it
  YuvMatrix matrix = YuvMatrix::bt601;  // of nv12 and i420
  YuvRange range = YuvRange::limited;   // of nv12 and i420

  // A frame in CUDA memory becomes the encoder's input on the GPU, with the same bits, and is never
  // copied to the host. It needs a backend on a GPU (tensorrt, or onnxruntime on cuda) and, at run time,
  // CUDA's compiler library (libnvrtc) of the driver's version or an older one, which compiles the kernels
  // when the first frame arrives.
  Memory memory = Memory::host;
  void* stream = nullptr;  // of cuda: the cudaStream_t on which the frame is written; null: the legacy
                           // default stream. Reading waits for it on the GPU, and has ended when the
                           // call returns
};

// B prompts for one image. Each prompt describes one object, by N points, by one box, by a mask, or
// by several of these. All prompts of a call have the same parts and the same N.
//
// Coordinates are (x, y) in pixels of the image. (0, 0) is the centre of the top left pixel.
struct Prompts {
  std::size_t count = 1;              // B, at least 1
  const double* points = nullptr;     // [B, N, 2]: x, y, inside the image; null: no points
  const float* labels = nullptr;      // [B, N]: 1 object, 0 background; required with points
  std::size_t points_per_prompt = 0;  // N; 0 without points
  const double* boxes = nullptr;      // [B, 4]: x0, y0, x1, y1; null: no boxes. A box must overlap
                                      // the image and may extend beyond each side of it by at most
                                      // the image's width or height
  const float* mask_input = nullptr;  // [B, S/4, S/4]: logits, one mask of Prediction::low_res from
                                      // an earlier call for each prompt; null: no masks
};

// Options for a prediction.
struct PredictParams {
  // false: one mask per prompt. true: three candidate masks, for ambiguous prompts. The default is
  // one mask on purpose; Python's GleSamPredictor follows segment_anything and defaults to three.
  bool multimask = false;
  bool masks = true;    // compute masks, stability, areas and boxes
  bool logits = false;  // compute logits at the image's size, 4 bytes per pixel

  // What a pipeline needs of masks. Each one also computes stability, areas and boxes; with `masks`
  // false, the masks themselves never exist in memory.
  bool boxes = false;   // only stability, areas and boxes
  bool packed = false;  // masks of 8 pixels per byte
  bool rle = false;     // masks as COCO's run lengths

  // Where to write the masks instead of Prediction::masks, such as a video buffer: B * C masks of H
  // rows, one after the other. If the call fails, its content may have changed.
  std::uint8_t* mask_buffer = nullptr;  // null: Prediction::masks
  std::size_t mask_buffer_size = 0;     // bytes; at least up to the last mask's last pixel
  std::size_t mask_stride = 0;          // bytes from one row to the next; 0 means W. The bytes
                                        // between the rows stay as they are
  bool polygons = false;                // also outlines of the masks, as `rle` is asked for
};

// A grid point between pixels: (0, 0) is the top left corner of the top left pixel.
struct Corner {
  int x = 0, y = 0;
};

// A closed outline along the edges of pixels.
using Ring = std::vector<Corner>;

// The result of a prediction. Arrays are row-major. C is 3 with multimask and 1 without.
struct Prediction {
  std::size_t count = 0;             // B
  std::size_t masks_per_prompt = 0;  // C
  std::size_t height = 0;            // H, the image's height in pixels
  std::size_t width = 0;             // W, the image's width in pixels
  std::size_t low_res_side = 0;      // S/4
  std::vector<std::uint8_t> masks;   // [B, C, H, W]: 1 inside the mask, 0 outside; empty unless
                                     // PredictParams::masks without a mask_buffer
  std::vector<float> logits;         // [B, C, H, W]: empty unless PredictParams::logits
  std::vector<float> scores;         // [B, C]: the IoU that the model predicts for each mask
  std::vector<double> stability;     // [B, C]: the mask's area at a raised threshold divided by its
                                     // area at a lowered one, 0 if that is empty; empty if neither
                                     // masks, boxes, packed nor rle were asked for
  std::vector<float> low_res;        // [B, C, S/4, S/4]: logits; pass one mask of them per prompt
                                     // as Prompts::mask_input to refine it
  std::vector<std::int64_t> areas;   // [B, C]: pixels inside the mask; given as stability is
  std::vector<Region> boxes;         // [B, C]: the smallest rectangle around the mask, zeros if it
                                     // is empty; given as stability is
  std::vector<std::uint8_t> packed;  // [B, C, H, (W + 7) / 8]: the highest bit of a byte is its
                                     // leftmost pixel, as in numpy.packbits; empty unless
                                     // PredictParams::packed
  std::vector<std::string> rle;      // [B, C]: "counts" of COCO's compressed RLE, whose "size" is
                                     // [H, W]; empty unless PredictParams::rle
  std::vector<std::vector<Ring>> polygons;  // [B, C]: outlines and holes, which the even-odd rule
                                            // fills to exactly the mask; empty unless
                                            // PredictParams::polygons
};

// The features of an image, which a predictor computed: what the decoder needs to answer prompts.
// Copies refer to the same features. They may outlive the predictor, and keep the model loaded.
class GLESAM_API Features {
 public:
  Features() noexcept = default;

  // Returns whether there are features: false for one that neither get_features nor encode has filled.
  explicit operator bool() const noexcept { return image_ != nullptr; }

 private:
  friend class Predictor;
  std::shared_ptr<const void> image_;
};

// The loaded bundle and the engine that runs it.
struct Info {
  std::string bundle;          // the bundle's folder
  std::string sha256;          // hash of manifest.json, which contains the hash of every other file
  std::string family;          // "sam" or "sam2"
  std::string preset;          // such as "sam_vit_b"
  bool trained = false;        // false: random weights, whose masks mean nothing
  std::size_t image_size = 0;  // S, the side of the encoder's square input in pixels
  std::string engine;          // such as "openvino"
  std::string engine_version;
  std::string provider;  // the engine's own name for what runs the graphs
  std::string device;    // the device that is really used
};

// The duration of the last run of each step, in seconds. `load` is that of opening the context.
struct Timings {
  double load = 0, preprocess = 0, encoder = 0, enhancer = 0, decoder = 0, masks = 0;
  double gate = 0;  // this and `enhancer` are 0 if the last image did not need the step
};

// What was decided for the image that is set.
struct Decision {
  bool enhanced = false;  // whether the enhancer ran
  bool estimated = false; // whether a gate was asked
  double estimate = 0;    // what the gate estimated that the enhancer gains
};

class Predictor;
class SharedContext;      // of the library
struct EverythingParams;  // of glesam_everything.h
struct Record;

// A loaded bundle: the weights, which its sessions share. All functions may be called from several
// threads at the same time.
class GLESAM_API Context {
 public:
  // Checks every file of a bundle against its manifest, then loads the graphs into an engine.
  //
  // bundle: the bundle's folder.
  // context: receives the context.
  // Errors: bad_bundle, backend, invalid_input (a wrong option), out_of_memory.
  static Status open(const std::string& bundle, const Params& params,
                     std::unique_ptr<Context>* context) noexcept;
  // The sessions keep working after the context is destroyed, and the model stays loaded for them.
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // Creates a session: a predictor on this model, without an image. It is cheap, since nothing is
  // loaded again; memory for its work is allocated when it runs first.
  //
  // session: receives the session.
  // Errors: backend (the engine cannot be shared), out_of_memory.
  Status create_session(std::unique_ptr<Predictor>* session) const noexcept;

  const Info& info() const noexcept;

 private:
  friend class Predictor;
  friend struct PredictorFactory;
  explicit Context(std::shared_ptr<const SharedContext> shared) noexcept;
  std::shared_ptr<const SharedContext> shared_;
};

// A session: the image that is set, on a model that it may share with other sessions.
class GLESAM_API Predictor {
 public:
  // Opens a context and creates a session of it.
  //
  // bundle: the bundle's folder.
  // predictor: receives the predictor.
  // Errors: those of Context::open.
  static Status open(const std::string& bundle, const Params& params,
                     std::unique_ptr<Predictor>* predictor) noexcept;
  ~Predictor();
  Predictor(const Predictor&) = delete;
  Predictor& operator=(const Predictor&) = delete;

  // Creates another session of the same context, for another thread. It has no image. Python's
  // GleSamPredictor.share does the same. Another thread may use this predictor meanwhile.
  //
  // session: receives the session.
  // Errors: backend (the engine cannot be shared), out_of_memory.
  Status share(std::unique_ptr<Predictor>* session) const noexcept;

  // Preprocesses an image and runs the encoder and the enhancer on it. All predictions use this
  // image until the next set_image or reset_image. The pixels are not needed after the call.
  //
  // Errors: invalid_input (no pixels, too large, a wrong stride), backend, out_of_memory, busy.
  Status set_image(const Image& image) noexcept;

  // Does the same with a frame of any format.
  Status set_frame(const Frame& frame) noexcept;

  // Encodes and enhances several frames, each as set_frame does, and gets the features of each one. The
  // image that is set stays the same. A bundle that was exported for batches runs as many frames at a
  // time as its graphs take; a dynamic batch takes all of a call, so that their number decides the
  // memory. Frames of one run share the memory of their features until all of them are freed.
  //
  // frames: `count` frames of any sizes and formats, all in the same kind of memory.
  // features: receives `count` features, for set_features.
  // Errors: those of set_frame, and invalid_input (no frame, or frames in both kinds of memory). The
  // message says which frame cannot be used.
  Status encode(const Frame* frames, std::size_t count, std::vector<Features>* features) noexcept;

  // Releases the image that is set, with its features. Does nothing if none is set.
  //
  // Errors: busy.
  Status reset_image() noexcept;

  // Gets the features of the image that is set, to set them again later: encode several images, and
  // prompt each of them when its prompts arrive. The features of an image take 4 MiB at SAM's full
  // size and 16 MiB at SAM 2's, on the device that computes them.
  //
  // features: receives the features.
  // Errors: invalid_input (no image is set), busy.
  Status get_features(Features* features) noexcept;

  // Sets an image by its features. Neither encoder nor enhancer runs, and nothing is copied.
  //
  // features: from get_features or encode of this predictor, or of another session of its context.
  // Errors: invalid_input (no features, or those of another context), busy.
  Status set_features(const Features& features) noexcept;

  // Runs the decoder on B prompts and computes their masks at the image's size.
  //
  // result: receives the masks; its previous content is replaced.
  // Errors: invalid_input (no image is set, a prompt is wrong, or the mask_buffer is too small),
  // backend, out_of_memory, busy.
  Status predict(const Prompts& prompts, const PredictParams& params, Prediction* result) noexcept;

  // Finds the masks of everything in a frame, by a grid of points (glesam_everything.h). The image that
  // is set stays the same.
  //
  // records: receives the masks, highest predicted IoU first; it is empty if none is good enough.
  // Errors: invalid_input (a parameter, or the frame is too small for the crops), and those of
  // set_image and predict.
  Status segment_everything(const Frame& frame, const EverythingParams& params,
                            std::vector<Record>* records) noexcept;

  // Sets a frame and predicts on it, in a thread of this predictor, and returns at once. Until the call
  // is done, the predictor is busy.
  //
  // frame: null: the image that is set. The pixels and PredictParams::mask_buffer must stay valid until
  //     `done` is called. The prompts are copied.
  // done: called once, in that thread, with the outcome and the result. It may start the next call or
  //     destroy the predictor. It must not throw.
  // Errors: invalid_input (no `done`, too many prompts, or a CUDA frame on cudaStreamPerThread, which is
  // another stream in that thread), busy, out_of_memory. Then `done` is not
  // called. All other errors go to `done`.
  Status segment_async(const Frame* frame, const Prompts& prompts, const PredictParams& params,
                       std::function<void(Status status, Prediction result)> done) noexcept;

  // Ends the call that runs, in whatever thread: it returns Code::cancelled soon and changes nothing. Does
  // nothing if no call runs. Destroying the predictor also cancels its asynchronous call.
  //
  // OpenVINO and ONNX Runtime interrupt the run of a graph. TensorRT finishes it first.
  void cancel() noexcept;

  // Limits the duration of each later call of this predictor. A call that takes longer returns
  // Code::timeout and changes nothing.
  //
  // seconds: 0 means no limit, which is the default.
  // Errors: invalid_input (negative or NaN), busy.
  Status set_timeout(double seconds) noexcept;

  // Computes the encoder's input without running anything, for programs that use an engine of their
  // own. The image that is set stays the same. Other threads may use the predictor meanwhile. Frames in
  // CUDA memory are refused, since their tensor would be there.
  //
  // tensor: receives [3, S, S] float32, normalised and padded as the manifest says.
  // Errors: invalid_input, out_of_memory.
  Status preprocess(const Image& image, std::vector<float>* tensor) const noexcept;
  Status preprocess(const Frame& frame, std::vector<float>* tensor) const noexcept;

  // Returns what was decided for the image that is set. Errors: invalid_input (no image), busy.
  Status decision(Decision* decision) noexcept;

  // These references are valid as long as the predictor. set_image and predict change the timings:
  // read them in the thread that called.
  const Info& info() const noexcept;
  const Timings& timings() const noexcept;

 private:
  friend struct PredictorFactory;  // for tests, with engines of their own
  struct State;
  explicit Predictor(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

// The error of one output of a stage. The stage's input comes from the golden file.
struct OutputError {
  std::string stage, output;
  std::vector<float> first, expected;  // the first four values: computed here, in the golden file
  double relative_l2 = 0;              // |computed - golden| / |golden|
  double max_abs = 0;                  // the largest absolute difference
};

// The result of a self-test.
struct Selftest {
  Info info;
  std::vector<OutputError> outputs;
  double mask_iou_mean = 0, mask_iou_worst = 0;  // IoU of the masks with the golden file's masks
  std::vector<std::string> failures;  // a line for each figure outside its limit; empty: passed
};

// Compares this machine with the reference. It opens a bundle, runs the image and the prompts of
// its golden.safetensors, and compares each stage's outputs and the masks. The limits depend on the
// bundle's precision. The enhancer always runs, whatever Params::enhance says.
//
// result: receives the figures. A figure outside its limit is an entry in `failures`; the Status is
// still ok.
// Errors: bad_bundle (also a golden file that cannot be used), backend, invalid_input,
// out_of_memory.
GLESAM_API Status selftest(const std::string& bundle, const Params& params,
                           Selftest* result) noexcept;

}  // namespace glesam
