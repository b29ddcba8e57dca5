#include "onnx_files.h"

#include <vector>

#include "errors.h"
#include "text.h"

namespace glesam {
namespace {

// The messages of onnx.proto that can contain a tensor.
enum class Message {
  none,
  model,
  training,
  graph,
  function,
  node,
  attribute,
  sparse_tensor,
  tensor,
  entry
};

// Returns the message that a field contains. Fields with `none` are skipped.
Message child(Message message, std::uint64_t field) {
  switch (message) {
    case Message::model:
      if (field == 7) return Message::graph;
      if (field == 20) return Message::training;
      if (field == 25) return Message::function;
      break;
    case Message::training:
      if (field == 1 || field == 2) return Message::graph;
      break;
    case Message::graph:
      if (field == 1) return Message::node;
      if (field == 5) return Message::tensor;
      if (field == 15) return Message::sparse_tensor;
      break;
    case Message::function:
      if (field == 7) return Message::node;
      if (field == 11) return Message::attribute;
      break;
    case Message::node:
      if (field == 5) return Message::attribute;
      break;
    case Message::attribute:
      if (field == 5 || field == 10) return Message::tensor;
      if (field == 6 || field == 11) return Message::graph;
      if (field == 22 || field == 23) return Message::sparse_tensor;
      break;
    case Message::sparse_tensor:
      if (field == 1 || field == 2) return Message::tensor;
      break;
    case Message::tensor:
      if (field == 13) return Message::entry;
      break;
    case Message::none:
    case Message::entry: break;
  }
  return Message::none;
}

constexpr std::uint64_t kEntryKey = 1, kEntryValue = 2, kDataLocation = 14, kExternal = 1;
enum Wire : std::uint64_t { varint = 0, fixed64 = 1, length = 2, fixed32 = 5 };

struct Malformed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Iterates over the fields in [begin, end).
class Fields {
 public:
  Fields(Bytes& bytes, std::uint64_t begin, std::uint64_t end)
      : bytes_(bytes), position_(begin), end_(end) {}

  std::uint64_t field = 0, wire = 0;
  std::uint64_t value = 0;  // the value of a varint, or the offset of the payload
  std::uint64_t stop = 0;   // the offset after the payload

  bool next() {
    if (position_ >= end_) return false;
    const std::uint64_t tag = read_varint();
    field = tag >> 3;
    wire = tag & 7;
    if (field == 0) fail(cat("field number 0 at byte ", position_));
    if (wire == varint) {
      value = read_varint();
      stop = position_;
      return true;
    }
    if (wire != length && wire != fixed64 && wire != fixed32) {
      fail(cat("wire type ", wire, " at byte ", position_));
    }
    const std::uint64_t size = wire == length ? read_varint() : wire == fixed64 ? 8 : 4;
    if (size > end_ - position_) fail(cat("cut off at byte ", position_));
    value = position_;
    stop = position_ += size;
    return true;
  }

 private:
  [[noreturn]] static void fail(const std::string& what) { throw Malformed(what); }

  std::uint64_t read_varint() {
    std::uint64_t number = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (position_ >= end_) fail(cat("cut off at byte ", position_));
      const std::uint8_t byte = bytes_.at(position_++);
      const std::uint64_t bits = byte & 0x7f;
      // A 64-bit number has one bit left in the tenth byte. No valid length is larger.
      if (shift == 63 && bits > 1) fail(cat("number too long at byte ", position_));
      number |= bits << shift;
      if (byte < 0x80) return number;
    }
    fail(cat("number too long at byte ", position_));
  }

  Bytes& bytes_;
  std::uint64_t position_, end_;
};

std::string text_of(Bytes& bytes, const Fields& at) {
  std::string text(at.stop - at.value, '\0');
  bytes.copy(at.value, text.size(), text.data());
  return text;
}

// The last value of a repeated field counts, as in protobuf.
void read_entry(Bytes& bytes, const Fields& at, bool& named, std::set<std::string>& locations) {
  std::string key, value;
  Fields entry(bytes, at.value, at.stop);
  while (entry.next()) {
    if (entry.wire != length) continue;
    if (entry.field == kEntryKey) key = text_of(bytes, entry);
    if (entry.field == kEntryValue) value = text_of(bytes, entry);
  }
  if (key != "location") return;
  named = true;
  locations.insert(value);
}

std::set<std::string> walk(Bytes& bytes) {
  struct Span {
    Message message;
    std::uint64_t begin, end;
  };
  std::set<std::string> locations;
  bool found_graph = false;
  // An explicit stack, so that hostile nesting cannot exhaust the program's.
  std::vector<Span> pending{{Message::model, 0, bytes.size()}};
  while (!pending.empty()) {
    const Span span = pending.back();
    pending.pop_back();
    bool external = false, named = false;
    Fields at(bytes, span.begin, span.end);
    while (at.next()) {
      if (span.message == Message::tensor && at.field == kDataLocation && at.wire == varint) {
        external = at.value == kExternal;
      }
      const Message inside = child(span.message, at.field);
      if (inside == Message::none || at.wire != length) continue;
      if (inside == Message::entry) {
        read_entry(bytes, at, named, locations);
      } else {
        found_graph = found_graph || inside == Message::graph;
        pending.push_back({inside, at.value, at.stop});
      }
    }
    if (external && !named) locations.insert("");
  }
  if (!found_graph) throw Malformed("it holds no graph");
  return locations;
}

[[noreturn]] void refuse(const std::string& where, const char* why) {
  bundle_error(cat(where, ": not an ONNX graph (", why, "); export the bundle again"));
}

}  // namespace

std::set<std::string> external_data_locations(Bytes& bytes, const std::string& where) {
  try {
    if (bytes.size() == 0) throw Malformed("empty");
    return walk(bytes);
  } catch (const std::runtime_error& error) {  // Malformed or ReadError
    refuse(where, error.what());
  }
}

std::set<std::string> external_data_locations(const std::filesystem::path& path) {
  try {
    Bytes bytes(path);
    return external_data_locations(bytes, utf8_of(path));
  } catch (const ReadError& error) {
    refuse(utf8_of(path), error.what());
  }
}

}  // namespace glesam
