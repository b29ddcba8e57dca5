// The C API of contexts: the options, opening a bundle, and creating sessions.
#include "c_handles.h"

struct glesam_context {
  std::unique_ptr<glesam::Context> context;
};

namespace {

using namespace glesam;

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

}  // extern "C"
