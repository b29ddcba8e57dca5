// The C API of contexts: the options, opening a bundle, and creating sessions.
#include "c_handles.h"

struct glesam_context {
  std::unique_ptr<glesam::Context> context;
};

struct glesam_selftest {
  glesam::Selftest result;
};

using namespace glesam;

namespace {

// Programs of 0.1 pass these structs without their size, or receive them by value. New options belong at
// the end of glesam_options, new requests at the end of glesam_request.
static_assert(sizeof(void*) != 8 ||
                  (sizeof(glesam_params) == 96 && sizeof(glesam_limits) == 48 &&
                   sizeof(glesam_prompts) == 48 && sizeof(glesam_result) == 72 &&
                   sizeof(glesam_box) == 16),
              "structs of 0.1 must stay as they are");

// The fields of glesam_params in 0.1. Its programs pass and receive it by value, so it stays as it is.
Params params_of(const glesam_params& given) {
  Params own = default_params();
  own.backend = text_of(given.backend);
  own.device = text_of(given.device);
  own.precision = text_of(given.precision);
  own.engine_library = text_of(given.engine_library);
  own.threads = given.threads;
  own.enhance = given.skip_enhancer == 0;
  own.max_prompt_batch = given.max_prompt_batch;
  own.limits = {given.limits.side,    given.limits.megapixels, given.limits.points,
                given.limits.prompts, given.limits.json_mib,   given.limits.golden_mib};
  return own;
}

Params params_of(const glesam_options* options) {
  const glesam_options given = options != nullptr ? read_sized(options, "options") : glesam_options{};
  Params own = params_of(given.params);
  own.streams = given.streams;
  own.gate = static_cast<Gate>(given.gate);
  if (given.log != nullptr) {
    own.log = [log = given.log, user = given.log_user](LogLevel level, const std::string& message) {
      log(user, static_cast<int>(level), message.c_str());
    };
  }
  return own;
}

}  // namespace

extern "C" {

const char* glesam_version(void) { return version(); }

glesam_params glesam_default_params(void) {
  glesam_params params{};
  params.backend = "auto";
  return params;
}

int glesam_open(const char* bundle, const glesam_params* params, glesam_predictor** predictor,
                char* message, size_t message_size) {
  const Status status = guard([&] {
    if (bundle == nullptr) input_error("bundle: a null pointer; pass a folder");
    if (predictor == nullptr) input_error("predictor: a null pointer; pass a place for the result");
    const Params own = params != nullptr ? params_of(*params) : default_params();
    auto handle = std::make_unique<glesam_predictor>();
    require(Predictor::open(bundle, own, &handle->predictor));
    *predictor = handle.release();
  });
  return said(status, message, message_size);
}

int glesam_context_open(const char* bundle, const glesam_options* options, glesam_context** context,
                        char* message, size_t message_size) {
  const Status status = guard([&] {
    if (bundle == nullptr) input_error("bundle: a null pointer; pass a folder");
    if (context == nullptr) input_error("context: a null pointer; pass a place for the result");
    auto handle = std::make_unique<glesam_context>();
    require(Context::open(bundle, params_of(options), &handle->context));
    *context = handle.release();
  });
  return said(status, message, message_size);
}

void glesam_context_close(glesam_context* context) { delete context; }

int glesam_session_create(const glesam_context* context, glesam_predictor** session, char* message,
                          size_t message_size) {
  const Status status = guard([&] {
    if (context == nullptr) input_error("context: a null pointer; pass a context");
    if (session == nullptr) input_error("session: a null pointer; pass a place for the result");
    auto handle = std::make_unique<glesam_predictor>();
    require(context->context->create_session(&handle->predictor));
    *session = handle.release();
  });
  return said(status, message, message_size);
}

int glesam_abi_version(void) { return GLESAM_ABI_VERSION; }

const char* glesam_backend(size_t index) {
  try {
    static const std::vector<std::string> names = backends();
    return index < names.size() ? names[index].c_str() : nullptr;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

int glesam_get_info(glesam_predictor* predictor, glesam_info* info) {
  const auto work = [&] {
    if (info == nullptr) input_error("info: a null pointer; pass a place for the result");
    check_size(info->struct_size, "info");
    const Info& known = predictor->predictor->info();
    glesam_info own{};
    own.bundle = known.bundle.c_str();
    own.sha256 = known.sha256.c_str();
    own.family = known.family.c_str();
    own.preset = known.preset.c_str();
    own.trained = known.trained ? 1 : 0;
    own.image_size = known.image_size;
    own.engine = known.engine.c_str();
    own.engine_version = known.engine_version.c_str();
    own.provider = known.provider.c_str();
    own.device = known.device.c_str();
    write_sized(own, info);
  };
  return report(predictor, [&] { return guard(work); });
}

int glesam_get_timings(glesam_predictor* predictor, glesam_timings* timings) {
  const auto work = [&] {
    if (timings == nullptr) input_error("timings: a null pointer; pass a place for the result");
    check_size(timings->struct_size, "timings");
    const Timings& t = predictor->predictor->timings();
    write_sized(glesam_timings{0, t.load, t.preprocess, t.encoder, t.enhancer, t.decoder, t.masks,
                               t.gate},
                timings);
  };
  return report(predictor, [&] { return guard(work); });
}

int glesam_selftest_run(const char* bundle, const glesam_options* options,
                        glesam_selftest** selftest, char* message, size_t message_size) {
  const Status status = guard([&] {
    if (bundle == nullptr) input_error("bundle: a null pointer; pass a folder");
    if (selftest == nullptr) input_error("selftest: a null pointer; pass a place for the result");
    auto handle = std::make_unique<glesam_selftest>();
    require(glesam::selftest(bundle, params_of(options), &handle->result));
    *selftest = handle.release();
  });
  return said(status, message, message_size);
}

void glesam_selftest_free(glesam_selftest* selftest) { delete selftest; }

int glesam_selftest_summarize(const glesam_selftest* selftest, glesam_selftest_summary* summary) {
  const Status status = guard([&] {
    if (selftest == nullptr || summary == nullptr) input_error("selftest: a null pointer");
    check_size(summary->struct_size, "summary");
    const Selftest& r = selftest->result;
    write_sized(glesam_selftest_summary{0, r.outputs.size(), r.failures.size(), r.mask_iou_mean,
                                        r.mask_iou_worst},
                summary);
  });
  return static_cast<int>(status.code);
}

int glesam_selftest_output(const glesam_selftest* selftest, size_t index,
                           glesam_output_error* error) {
  const Status status = guard([&] {
    if (selftest == nullptr || error == nullptr) input_error("selftest: a null pointer");
    check_size(error->struct_size, "error");
    if (index >= selftest->result.outputs.size()) input_error("index: too large");
    const OutputError& found = selftest->result.outputs[index];
    write_sized(glesam_output_error{0, found.stage.c_str(), found.output.c_str(),
                                    found.relative_l2, found.max_abs},
                error);
  });
  return static_cast<int>(status.code);
}

const char* glesam_selftest_failure(const glesam_selftest* selftest, size_t index) {
  if (selftest == nullptr || index >= selftest->result.failures.size()) return nullptr;
  return selftest->result.failures[index].c_str();
}

}  // extern "C"
