// Uses one context from several threads.
// Usage: sessions BUNDLE [BACKEND [LIBRARY]]; or sessions --memory BUNDLE, which prints what a
// session takes.
#include <cstring>
#include <fstream>
#include <thread>

#include "images.h"

namespace {

using namespace glesam;
using namespace glesam_tests;

constexpr int kThreads = 8;

std::string bundle;
Params params = default_params();

std::unique_ptr<Context> opened() {
  std::unique_ptr<Context> context;
  CHECK_EQUAL(Context::open(bundle, params, &context).message, "");
  return context;
}

std::unique_ptr<Predictor> session_of(const Context& context) {
  std::unique_ptr<Predictor> session;
  CHECK_EQUAL(context.create_session(&session).message, "");
  return session;
}

Prediction segmented(Predictor& predictor, std::uint32_t seed) {
  CHECK_EQUAL(set_image(predictor, seed).message, "");
  return predicted(predictor, 3);
}

bool same(const Prediction& a, const Prediction& b) {
  return a.masks == b.masks && a.low_res == b.low_res && a.scores == b.scores;
}

// Calls work(i) in `kThreads` threads, and throws what the first of them throws.
template <typename Work>
void in_threads(Work&& work) {
  std::vector<std::thread> running;
  std::vector<std::string> failures(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    running.emplace_back([&, i] {
      try {
        work(static_cast<std::uint32_t>(i));
      } catch (const std::exception& error) {
        failures[static_cast<std::size_t>(i)] = error.what();
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  for (const std::string& failure : failures) CHECK_EQUAL(failure, "");
}

void threads_make_the_masks_of_one_thread() {
  std::vector<Prediction> expected;
  {
    std::unique_ptr<Predictor> alone;
    CHECK_EQUAL(Predictor::open(bundle, params, &alone).message, "");
    for (std::uint32_t i = 0; i < kThreads; ++i) expected.push_back(segmented(*alone, i));
  }
  CHECK(!same(expected[0], expected[1]));
  const auto context = opened();
  in_threads([&](std::uint32_t i) {
    const auto session = session_of(*context);
    for (std::uint32_t round = 0; round < 3; ++round) {
      const std::uint32_t seed = (i + round) % kThreads;
      CHECK(same(segmented(*session, seed), expected[seed]));
    }
  });
}

void sessions_keep_the_model() {
  auto context = opened();
  CHECK_EQUAL(context->info().image_size > 0, true);
  auto first = session_of(*context), second = session_of(*context);
  context.reset();
  const Prediction before = segmented(*first, 1);
  std::unique_ptr<Predictor> third;
  CHECK_EQUAL(first->share(&third).message, "");
  Prediction none;
  REFUSED(predict(*third, 1, &none), Code::invalid_input, "no image is set");
  first.reset();
  CHECK(same(segmented(*second, 1), before));
  CHECK(same(segmented(*third, 1), before));
  CHECK_EQUAL(third->info().sha256, second->info().sha256);
}

// One session encodes an image, and others answer prompts on it at the same time.
void features_pass_between_sessions() {
  const auto context = opened();
  Features features;
  Prediction expected;
  {
    const auto encodes = session_of(*context);
    expected = segmented(*encodes, 5);
    CHECK(encodes->get_features(&features));
  }
  in_threads([&](std::uint32_t i) {
    const auto session = session_of(*context);
    for (int round = 0; round < 3; ++round) {
      if (i % 2 == 0) segmented(*session, i);  // others encode meanwhile
      CHECK_EQUAL(session->set_features(features).message, "");
      CHECK(same(predicted(*session, 3), expected));
    }
  });
  const auto another = opened();
  REFUSED(session_of(*another)->set_features(features), Code::invalid_input, "of another context");
}

void null_pointers() {
  REFUSED(Context::open(bundle, params, nullptr), Code::invalid_input, "context: a null pointer");
  const auto context = opened();
  REFUSED(context->create_session(nullptr), Code::invalid_input, "session: a null pointer");
  REFUSED(session_of(*context)->share(nullptr), Code::invalid_input, "session: a null pointer");
  Params wrong = params;
  wrong.streams = -1;
  std::unique_ptr<Context> none;
  REFUSED(Context::open(bundle, wrong, &none), Code::invalid_input, "streams -1: must be from 0");
  CHECK(none == nullptr);
}

// Returns the process's resident memory in KiB.
long resident() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("VmRSS:", 0) == 0) return std::stol(line.substr(6));
  }
  return 0;
}

int print_memory() {
  const long empty = resident();
  const auto context = opened();
  std::printf("context: %ld KiB\n", resident() - empty);
  std::vector<std::unique_ptr<Predictor>> sessions;
  for (int i = 0; i < kThreads; ++i) {
    const long before = resident();
    sessions.push_back(session_of(*context));
    const long created = resident();
    segmented(*sessions.back(), 1);
    std::printf("session %d: %ld KiB, after its first image %ld KiB more\n", i + 1,
                created - before, resident() - created);
  }
  std::vector<std::unique_ptr<Predictor>> alone(2);
  for (auto& predictor : alone) {
    const long before = resident();
    CHECK(Predictor::open(bundle, params, &predictor));
    segmented(*predictor, 1);
    std::printf("a predictor of its own: %ld KiB\n", resident() - before);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  if (argc == 3 && std::strcmp(argv[1], "--memory") == 0) {
    bundle = argv[2];
    return print_memory();
  }
  bundle = argv[1];
  if (argc > 2) params.backend = argv[2];
  if (argc > 3) params.engine_library = argv[3];
  params.threads = 1;
  return run_tests(
      {{"threads make the masks of one thread", threads_make_the_masks_of_one_thread},
       {"sessions keep the model", sessions_keep_the_model},
       {"features pass between sessions", features_pass_between_sessions},
       {"null pointers", null_pointers}});
}
