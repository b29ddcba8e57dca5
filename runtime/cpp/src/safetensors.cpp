#include "safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <stdexcept>

#include "text.h"
#include "typed_json.h"

namespace glesam {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::runtime_error(what); }

std::optional<std::uint64_t> bytes_of(const std::string& dtype) {
  static constexpr struct {
    const char* name;
    std::uint64_t bytes;
  } kTypes[] = {{"BOOL", 1}, {"U8", 1},   {"I8", 1},  {"I16", 2}, {"U16", 2},
                {"F16", 2},  {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},
                {"F64", 8},  {"I64", 8},  {"U64", 8}};
  for (const auto& type : kTypes) {
    if (dtype == type.name) return type.bytes;
  }
  return std::nullopt;
}

TensorEntry read_entry(const std::string& name, const Node& node) {
  TensorEntry entry;
  std::vector<std::int64_t> offsets;
  const auto read_offsets = [&](const Node& n) {
    offsets.clear();
    read_array(n, [&](const Node& o) { offsets.push_back(read_integer(o, 0)); }, 2);
  };
  read_object(node, {{"dtype", into(entry.dtype, read_string)},
                     {"shape", into_list(entry.shape, integer(0))},
                     {"data_offsets", read_offsets}});
  entry.begin = static_cast<std::uint64_t>(offsets[0]);
  entry.end = static_cast<std::uint64_t>(offsets[1]);
  const auto unit = bytes_of(entry.dtype);
  if (!unit) refuse(cat(py_repr(name), " has an unknown type, ", py_repr(entry.dtype)));
  std::uint64_t size = *unit;
  for (const std::int64_t axis : entry.shape) {
    const auto length = static_cast<std::uint64_t>(axis);
    if (size != 0 && length > std::numeric_limits<std::uint64_t>::max() / size) {
      refuse(cat(py_repr(name), " has a shape that fits in no memory"));
    }
    size *= length;
  }
  if (entry.end < entry.begin || entry.end - entry.begin != size) {
    refuse(cat(py_repr(name), " has offsets that do not fit its shape"));
  }
  return entry;
}

}  // namespace

std::map<std::string, TensorEntry> parse_safetensors_header(std::string_view header,
                                                            std::uint64_t data_size) {
  std::map<std::string, TensorEntry> entries;
  const Json root = parse_json(header);
  read_map({root}, [&](const std::string& name, const Node& node) {
    if (name == "__metadata__") return;
    if (!entries.emplace(name, read_entry(name, {node.value, name})).second) {
      refuse(cat(py_repr(name), " occurs twice"));
    }
  });
  std::vector<const TensorEntry*> by_place;
  for (const auto& [name, entry] : entries) by_place.push_back(&entry);
  std::sort(by_place.begin(), by_place.end(), [](const TensorEntry* a, const TensorEntry* b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
  });
  std::uint64_t position = 0;
  for (const TensorEntry* entry : by_place) {
    if (entry->begin != position) refuse("its tensors overlap or leave a gap");
    position = entry->end;
  }
  if (position != data_size) refuse("its tensors do not fill the file");
  return entries;
}

StoredTensors read_safetensors(const std::filesystem::path& path) {
  Bytes file(path);
  return read_safetensors(file);
}

StoredTensors read_safetensors(Bytes& file, std::uint64_t max_header) {
  if (file.size() < 8) refuse("too short for a header");
  std::uint64_t length = 0;
  for (std::uint64_t i = 8; i-- > 0;) length = length << 8 | file.at(i);
  if (length > file.size() - 8) refuse("its header is longer than the file");
  if (length > kMaxHeader) refuse("its header is longer than the format allows");
  if (length > max_header) {
    refuse(cat("its header of ", length,
               " bytes exceeds limits.json_mib; raise it in the parameters ",
               "if there is memory for it"));
  }
  std::string header(length, '\0');
  file.copy(8, length, header.data());
  StoredTensors tensors;
  for (const auto& [name, entry] : parse_safetensors_header(header, file.size() - 8 - length)) {
    StoredTensor tensor{entry.dtype, entry.shape, {}};
    tensor.bytes.resize(entry.end - entry.begin);
    file.copy(8 + length + entry.begin, tensor.bytes.size(), tensor.bytes.data());
    tensors.emplace(name, std::move(tensor));
  }
  return tensors;
}

std::vector<float> StoredTensor::floats() const {
  if (dtype != "F32") refuse(cat("a tensor is ", dtype, ", not F32"));
  std::vector<float> values(bytes.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace glesam
