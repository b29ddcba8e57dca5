// Ends a call early: because another thread cancels it, or because its time is over.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "errors.h"

namespace glesam {

class Stop {
 public:
  // Starts a call that may take so many seconds; 0: any time.
  void begin(double seconds) {
    cancelled_ = false;
    limited_ = seconds > 0;
    if (!limited_) return;
    constexpr double kMost = 1e8;  // three years, which the clock can still add
    deadline_ = Clock::now() +
                std::chrono::duration_cast<Clock::duration>(
                    std::chrono::duration<double>(seconds < kMost ? seconds : kMost));
  }

  // Cancels the call that runs. Any thread may do so.
  void cancel() {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
    changed_.notify_all();
  }

  bool is_set() const { return cancelled_ || (limited_ && Clock::now() >= deadline_); }

  // Throws Error (cancelled or timeout) if the call must end.
  void check() const {
    if (cancelled_) throw Error(Code::cancelled, "cancelled by the caller");
    if (limited_ && Clock::now() >= deadline_) {
      throw Error(Code::timeout,
                  "the call took longer than its timeout; raise it, or give fewer prompts");
    }
  }

  // Calls `interrupt` in a thread of its own when the call must end, unless this object dies before.
  // For engines whose runs another thread has to interrupt.
  class Watch {
   public:
    Watch(Stop& stop, std::function<void()> interrupt)
        : stop_(stop), thread_([this, interrupt = std::move(interrupt)] { wait(interrupt); }) {}
    ~Watch() {
      {
        const std::lock_guard<std::mutex> lock(stop_.mutex_);
        done_ = true;
        stop_.changed_.notify_all();
      }
      thread_.join();
    }
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

   private:
    void wait(const std::function<void()>& interrupt) {
      std::unique_lock<std::mutex> lock(stop_.mutex_);
      while (!done_ && !stop_.is_set()) {
        if (stop_.limited_) {
          stop_.changed_.wait_until(lock, stop_.deadline_);
        } else {
          stop_.changed_.wait(lock);
        }
      }
      if (!done_) interrupt();
    }

    Stop& stop_;
    bool done_ = false;
    std::thread thread_;
  };

 private:
  using Clock = std::chrono::steady_clock;
  std::atomic<bool> cancelled_{false};
  bool limited_ = false;        // changes only when no call runs
  Clock::time_point deadline_;  // likewise
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace glesam
