#include "worker.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

namespace glesam {

// The thread owns it too, so that a task may destroy the worker.
struct Worker::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::function<void()> task;
  bool ends = false;
  std::thread thread;
};

Worker::Worker() : shared_(std::make_shared<Shared>()) {}

Worker::~Worker() { finish(); }

void Worker::finish() {
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->ends = true;
    shared_->changed.notify_all();
  }
  if (!shared_->thread.joinable()) return;
  if (shared_->thread.get_id() == std::this_thread::get_id()) {
    shared_->thread.detach();
  } else {
    shared_->thread.join();
  }
}

void Worker::run(std::function<void()> task) {
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  shared_->task = std::move(task);
  shared_->changed.notify_all();
  if (shared_->thread.joinable()) return;
  try {
    shared_->thread = std::thread([shared = shared_] {
      std::unique_lock<std::mutex> own(shared->mutex);
      while (true) {
        shared->changed.wait(own, [&shared] { return shared->ends || shared->task; });
        if (!shared->task) return;
        const auto next = std::exchange(shared->task, nullptr);
        own.unlock();
        next();
        own.lock();
      }
    });
  } catch (...) {
    shared_->task = nullptr;
    throw;
  }
}

}  // namespace glesam
