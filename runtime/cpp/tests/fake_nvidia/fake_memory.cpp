#include "fake_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "fake_nvidia.h"

namespace {

// Pages of which the last ones are the allocated bytes, so that an access behind them crashes.
struct Pages {
  void* begin;
  std::size_t bytes;  // of whole pages, without the guard behind them
  std::size_t used;   // the allocated bytes
};
std::map<const char*, Pages> blocks;  // by the address of the allocated bytes
std::set<FakeStream*> streams;
int workers = 0;

constexpr std::size_t kAlignment = 16;  // of the address and so of the end, within the guard

std::size_t rounded_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

void protect(const Pages& pages, int protection) { mprotect(pages.begin, pages.bytes, protection); }

}  // namespace

FakeGpu& fake_gpu() {
  static FakeGpu gpu;
  return gpu;
}

FakeGpuAtWork::FakeGpuAtWork() {
  if (workers++ > 0) return;
  for (const auto& [address, pages] : blocks) protect(pages, PROT_READ | PROT_WRITE);
}

FakeGpuAtWork::~FakeGpuAtWork() {
  if (--workers > 0) return;
  for (const auto& [address, pages] : blocks) protect(pages, PROT_NONE);
}

FakeStream::FakeStream() { streams.insert(this); }
FakeStream::~FakeStream() { streams.erase(this); }

cudaError_t FakeStream::finish() { return finish(added()); }

cudaError_t FakeStream::finish(std::size_t count) {
  const FakeGpuAtWork working;
  while (done_ < count && !queue_.empty()) {
    const auto work = std::move(queue_.front());
    queue_.pop_front();
    ++done_;
    if (const cudaError_t code = work(); code != cudaSuccess) {
      done_ += queue_.size();
      queue_.clear();
      return code;
    }
  }
  return cudaSuccess;
}

FakeStream& fake_default_stream() {
  static FakeStream stream;
  return stream;
}

void* fake_allocate(std::size_t bytes) {
  FakeGpu& gpu = fake_gpu();
  if (gpu.capacity < gpu.allocated + bytes) return nullptr;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t whole = rounded_up(bytes, page);
  void* pages = mmap(nullptr, whole + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return nullptr;
  gpu.allocated += bytes;
  char* address = static_cast<char*>(pages) + whole - rounded_up(bytes, kAlignment);
  blocks[address] = {pages, whole, bytes};
  if (workers > 0) protect(blocks[address], PROT_READ | PROT_WRITE);
  return address;
}

cudaError_t fake_free(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  cudaError_t code = cudaSuccess;
  for (FakeStream* stream : streams) {
    if (const cudaError_t failed = stream->finish(); failed != cudaSuccess) code = failed;
  }
  const auto block = blocks.find(static_cast<const char*>(memory));
  const Pages pages = block->second;
  fake_gpu().allocated -= pages.used;
  blocks.erase(block);
  munmap(pages.begin, pages.bytes + static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
  return code;
}

FakeBlock fake_block_of(const void* memory) {
  const char* address = static_cast<const char*>(memory);
  auto block = blocks.upper_bound(address);
  if (block == blocks.begin()) return {};
  --block;
  if (address >= block->first + block->second.used) return {};
  return {const_cast<char*>(block->first), block->second.used};
}

bool fake_is_allocated(const void* memory, std::size_t bytes) {
  const FakeBlock block = fake_block_of(memory);
  const bool inside = block.begin != nullptr &&
                      static_cast<const char*>(memory) + bytes <= block.begin + block.bytes;
  if (!inside) fake_gpu().touched_free_memory = true;
  return inside;
}

void fake_copy_from_host(FakeStream* stream, void* to, const void* from, std::size_t bytes) {
  const char* source = static_cast<const char*>(from);
  fake_gpu().copied_from_host += bytes;
  const std::vector<char> staged(source, source + bytes);
  stream->add([=]() -> cudaError_t {
    if (!fake_is_allocated(to, bytes)) return cudaErrorLaunchFailure;
    std::memcpy(to, staged.data(), staged.size());
    return cudaSuccess;
  });
}
