// A thread that runs one task at a time.
#pragma once

#include <functional>
#include <memory>

namespace glesam {

class Worker {
 public:
  Worker();
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Waits for the task that runs, unless the task itself calls this. No task may follow.
  void finish();

  // Runs a task, which must not throw. The task before has ended, or is the caller. Throws
  // std::system_error if there can be no thread.
  void run(std::function<void()> task);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace glesam
