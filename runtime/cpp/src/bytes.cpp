#include "bytes.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <system_error>

#include "sha256.h"

namespace glesam {
namespace {

constexpr std::uint64_t kWindow = 1 << 12;
constexpr std::size_t kChunk = 1 << 20;

[[noreturn]] void fail() {
  const int code = errno != 0 ? errno : EIO;
  throw ReadError(std::generic_category().message(code));
}

std::unique_ptr<std::istream> open(const std::filesystem::path& path) {
  errno = 0;
  auto file = std::make_unique<std::ifstream>();
  file->rdbuf()->pubsetbuf(nullptr, 0);  // the callers have buffers of their own
  file->open(path, std::ios::binary);
  if (!*file) fail();
  return file;
}

}  // namespace

Bytes::Bytes(const std::filesystem::path& path) : Bytes(open(path)) {}

Bytes::Bytes(std::unique_ptr<std::istream> stream) : stream_(std::move(stream)) {
  errno = 0;
  stream_->seekg(0, std::ios::end);
  const auto end = stream_->tellg();
  if (end < 0) fail();
  size_ = static_cast<std::uint64_t>(end);
}

void Bytes::copy(std::uint64_t offset, std::uint64_t count, void* into) {
  errno = 0;
  stream_->clear();
  stream_->seekg(static_cast<std::streamoff>(offset));
  stream_->read(static_cast<char*>(into), static_cast<std::streamsize>(count));
  if (static_cast<std::uint64_t>(stream_->gcount()) != count) fail();
}

void Bytes::load(std::uint64_t offset) {
  window_.resize(std::min(kWindow, size_ - offset));
  begin_ = offset;
  copy(offset, window_.size(), window_.data());
}

std::string read_file(const std::filesystem::path& path) {
  Bytes bytes(path);
  std::string content(bytes.size(), '\0');
  bytes.copy(0, bytes.size(), content.data());
  return content;
}

std::string sha256_of(const std::filesystem::path& path) {
  const auto file = open(path);
  Sha256 digest;
  std::vector<char> buffer(kChunk);
  do {
    errno = 0;
    file->read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    digest.update(buffer.data(), static_cast<std::size_t>(file->gcount()));
  } while (*file);
  if (!file->eof()) fail();
  return digest.hex();
}

}  // namespace glesam
