// Tests parts against independent oracles: published vectors, definitions, Python's repr.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "bundle.h"
#include "chain.h"
#include "check.h"
#include "errors.h"
#include "masks.h"
#include "safetensors.h"
#include "sha256.h"
#include "text.h"
#include "typed_json.h"

namespace {

using namespace glesam;

std::string sha256(const std::string& text) {
  Sha256 digest;
  digest.update(text.data(), text.size());
  return digest.hex();
}

// The examples of FIPS 180-4.
void sha256_vectors() {
  CHECK_EQUAL(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK_EQUAL(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK_EQUAL(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK_EQUAL(sha256(std::string(1'000'000, 'a')),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

void sha256_in_pieces() {
  std::string text(1000, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 7);
  for (std::size_t step = 1; step < 200; step += 13) {
    Sha256 digest;
    for (std::size_t i = 0; i < text.size(); i += step) {
      digest.update(text.data() + i, std::min(step, text.size() - i));
    }
    CHECK_EQUAL(digest.hex(), sha256(text));
  }
}

void sha256_native_is_portable() {
  const auto native = sha256_detail::compress_native();
  if (native == nullptr) {
    std::printf("note: this processor has no SHA instructions\n");
    return;
  }
  std::mt19937 random(0);
  std::vector<std::uint8_t> blocks(64 * 50);
  for (auto& byte : blocks) byte = static_cast<std::uint8_t>(random());
  std::uint32_t a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  native(a, blocks.data(), 50);
  sha256_detail::compress_portable(b, blocks.data(), 50);
  CHECK(std::memcmp(a, b, sizeof a) == 0);
}

void text_is_pythons() {
  CHECK_EQUAL(py_repr("zip"), "'zip'");
  CHECK_EQUAL(py_repr("it's"), "\"it's\"");
  CHECK_EQUAL(py_repr("it's \"so\""), "'it\\'s \"so\"'");
  CHECK_EQUAL(py_repr("a\n\x01\\\xc3\xa9\xc2\xa0"), "'a\\n\\x01\\\\\xc3\xa9\\xa0'");
  CHECK_EQUAL(general(120.0), "120");
  CHECK_EQUAL(general(0.1 + 0.2), "0.3");
  CHECK_EQUAL(general(1e7), "1e+07");
  CHECK_EQUAL(general(-1.5e-5), "-1.5e-05");
  CHECK_EQUAL(fixed(0.999949, 5), "0.99995");
  CHECK_EQUAL(one_line(" a\n\n b\t"), "a b");
}

std::string reason_of(const std::string& header, std::uint64_t size) {
  try {
    parse_safetensors_header(header, size);
    return "read";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

std::string tensor(const char* name, const char* dtype, const char* shape, const char* offsets) {
  return std::string("\"") + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

void hostile_safetensors() {
  const std::string a = tensor("a", "F32", "[2]", "[0,8]");
  CHECK_EQUAL(reason_of("{" + a + "}", 8), "read");
  CHECK_EQUAL(reason_of("{\"__metadata__\":{\"x\":\"y\"}," + a + "}", 8), "read");
  CHECK_CONTAINS(reason_of("{" + a + "}", 9), "do not fill the file");
  CHECK_CONTAINS(reason_of("{" + a + "," + a + "}", 8), "twice");
  CHECK_CONTAINS(reason_of("{" + a + "," + tensor("b", "U8", "[2]", "[6,8]") + "}", 8), "overlap");
  CHECK_CONTAINS(reason_of("{" + tensor("a", "F32", "[2]", "[8,16]") + "}", 16), "gap");
  CHECK_CONTAINS(reason_of("{" + tensor("a", "F32", "[3]", "[0,8]") + "}", 8), "do not fit");
  CHECK_CONTAINS(reason_of("{" + tensor("a", "F32", "[2]", "[8,0]") + "}", 8), "do not fit");
  CHECK_CONTAINS(reason_of("{" + tensor("a", "F9", "[2]", "[0,8]") + "}", 8), "unknown type");
  CHECK_CONTAINS(reason_of("{" + tensor("a", "F32", "[-2]", "[0,8]") + "}", 8),
                 "must be at least 0");
  CHECK_CONTAINS(
      reason_of(
          "{" + tensor("a", "F32", "[4611686018427387904,4611686018427387904]", "[0,0]") + "}", 0),
      "fits in no memory");
  CHECK_CONTAINS(reason_of("[]", 0), "must be an object");
  CHECK_CONTAINS(reason_of("", 0), "parse error");
  CHECK_CONTAINS(reason_of(std::string(100'000, '['), 0), "recursion");
}

void a_long_header_is_refused() {
  const std::string header = "{" + tensor("a", "U8", "[1]", "[0,1]") + "}";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  file += header + "x";
  const auto read = [&file](std::uint64_t most) -> std::string {
    Bytes bytes(std::make_unique<std::istringstream>(file));
    try {
      return std::to_string(read_safetensors(bytes, most).size());
    } catch (const std::runtime_error& error) {
      return error.what();
    }
  };
  CHECK_EQUAL(read(header.size()), "1");
  CHECK_CONTAINS(read(header.size() - 1), "exceeds limits.json_mib");
}

// The golden file is sparse, and only its size is read.
void a_large_golden_file_is_refused() {
  Bundle bundle;
  bundle.path = std::filesystem::temp_directory_path();
  bundle.manifest.golden.file = cat("glesam-unit-", std::random_device{}(), ".safetensors");
  std::ofstream(bundle.golden_path()).put('\0');
  std::filesystem::resize_file(bundle.golden_path(), (std::uintmax_t{512} << 20) + 1);
  const auto load = [&bundle](const Limits& limits) {
    return guard([&] { load_golden(bundle, limits); });
  };
  const Status by_default = load({});
  Limits raised;
  raised.golden_mib = 513;
  const Status by_raised = load(raised);
  std::filesystem::remove(bundle.golden_path());
  CHECK_CONTAINS(by_default.message,
                 "536870913 bytes, more than the limit of 512 MiB; raise limits.golden_mib");
  CHECK(by_default.code == Code::bad_bundle);
  CHECK_CONTAINS(by_raised.message, "not a golden file");
}

// Messages of the engines, as they print them.
void engines_without_memory() {
  for (const char* message :
       {"Check 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:\nFailed to allocate "
        "12308480 bytes of memory",
        "std::bad_alloc", "bad allocation", "CUDA failure 2: out of memory",
        "[E:onnxruntime] bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 9",
        "Error Code 2: OutOfMemory (Requested size was 1 bytes.)",
        "[GPU] clCreateBuffer, error code: -4 CL_MEM_OBJECT_ALLOCATION_FAILURE",
        "ZE_RESULT_ERROR_OUT_OF_DEVICE_MEMORY", "CL_OUT_OF_HOST_MEMORY",
        "[CPU] PowerStatic node with name 'Multiply_428522' can't alloc",
        "Could not allocate memory"}) {
    CHECK_EQUAL(std::string(means_out_of_memory(message) ? "" : message), "");
  }
  for (const char* message : {"", "the shape of input data conflicts with the reshape pattern",
                              "invalid memory access", "illegal memory access was encountered",
                              "Can't allocate registers for a snippet: not enough registers"}) {
    CHECK_EQUAL(std::string(means_out_of_memory(message) ? message : ""), "");
  }
}

void batches_are_filled() {
  Manifest manifest;
  const auto rows = [&](std::int64_t count) { return rows_for(manifest, count); };
  for (const Stage stage : kStages) manifest.stages[stage];
  manifest.target.batch = 0;
  CHECK_EQUAL(rows(5), std::int64_t{5});
  manifest.stages[Stage::enhancer].profile['N'] = {2, 4, 4};
  CHECK_EQUAL(rows(1), std::int64_t{2});
  CHECK_EQUAL(rows(3), std::int64_t{3});
  manifest.target.batch = 3;
  CHECK_EQUAL(rows(1), std::int64_t{3});
}

void json_keeps_order_and_numbers() {
  const Json root =
      parse_json(R"({"b": 1, "a": [1.0, 1e19, 123456789012345678901234567890, -9e99, 5], "b": 2})");
  CHECK_EQUAL(root.members.size(), std::size_t{3});
  CHECK_EQUAL(root.members.front().first, "b");
  CHECK_EQUAL(root.find("b")->text, "2");
  const std::vector<Json>& items = root.find("a")->items;
  CHECK_EQUAL(integer()({items[2]}), std::numeric_limits<std::int64_t>::max());
  CHECK_EQUAL(integer()({items[4]}), std::int64_t{5});
  for (const int real : {0, 1, 3}) {
    std::string said;
    try {
      integer()({items[static_cast<std::size_t>(real)], "$.a"});
    } catch (const FieldError& error) {
      said = error.what();
    }
    CHECK_EQUAL(said, "`$.a`: must be an integer");
  }
}

void json_is_limited() {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  CHECK(parse_json(nested(200)).kind == Json::Kind::array);
  std::string said;
  try {
    parse_json(nested(201));
  } catch (const JsonError& error) {
    said = error.what();
  }
  CHECK_CONTAINS(said, "maximum recursion depth");
  // A document that takes time with the square of its length would take hours here.
  std::string keys = "{\"0\":{}", items = "[{}";
  for (int i = 1; i < 200'000; ++i) {
    keys += ",\"" + std::to_string(i) + "\":{}";
    items += ",{}";
  }
  CHECK_EQUAL(parse_json(keys + "}").members.size(), std::size_t{200'000});
  CHECK_EQUAL(parse_json(items + "]").items.size(), std::size_t{200'000});
}

// One bilinear step with half-pixel centres, computed from its definition.
std::vector<double> bilinear(const std::vector<double>& in, std::size_t h, std::size_t w,
                             std::size_t out_h, std::size_t out_w) {
  const auto place = [](std::size_t i, std::size_t from, std::size_t to) {
    const double at =
        (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5;
    return std::min(std::max(at, 0.0), static_cast<double>(from - 1));
  };
  std::vector<double> out;
  for (std::size_t y = 0; y < out_h; ++y) {
    for (std::size_t x = 0; x < out_w; ++x) {
      const double py = place(y, h, out_h), px = place(x, w, out_w);
      const auto y0 = static_cast<std::size_t>(py), x0 = static_cast<std::size_t>(px);
      const std::size_t y1 = std::min(y0 + 1, h - 1), x1 = std::min(x0 + 1, w - 1);
      const double fy = py - static_cast<double>(y0), fx = px - static_cast<double>(x0);
      out.push_back((1 - fy) * ((1 - fx) * in[y0 * w + x0] + fx * in[y0 * w + x1]) +
                    fy * ((1 - fx) * in[y1 * w + x0] + fx * in[y1 * w + x1]));
    }
  }
  return out;
}

void upscaling_by_its_definition() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 5);
  const Size sizes[] = {{1, 1}, {7, 300}, {300, 7}, {64, 64}, {100, 33}, {500, 400}};
  for (const bool direct : {false, true}) {
    for (const Size size : sizes) {
      Preprocessing rules;
      rules.image_size = 64;
      rules.square = direct;
      Postprocessing masks;
      masks.direct = direct;
      masks.stability_offset = 1;
      const Geometry geometry = geometry_of(size, rules);
      std::vector<float> low(16 * 16);
      for (float& value : low) value = normal(random);
      std::vector<double> expected(low.begin(), low.end());
      const auto h = static_cast<std::size_t>(size.height),
                 w = static_cast<std::size_t>(size.width);
      if (direct) {
        expected = bilinear(expected, 16, 16, h, w);
      } else {
        const auto rh = static_cast<std::size_t>(geometry.resized.height);
        const auto rw = static_cast<std::size_t>(geometry.resized.width);
        const std::vector<double> whole = bilinear(expected, 16, 16, 64, 64);
        std::vector<double> cropped;
        for (std::size_t y = 0; y < rh; ++y) {
          cropped.insert(cropped.end(), whole.begin() + static_cast<std::ptrdiff_t>(y * 64),
                         whole.begin() + static_cast<std::ptrdiff_t>(y * 64 + rw));
        }
        expected = bilinear(cropped, rh, rw, h, w);
      }
      std::vector<float> found(h * w);
      Upscaler(geometry, masks).logits(low.data(), found.data());
      for (std::size_t i = 0; i < found.size(); ++i) {
        CHECK(std::abs(static_cast<double>(found[i]) - expected[i]) < 1e-5);
      }
    }
  }
}

void single_mask_gives_way() {
  Decoded all{1, 4, 2, std::vector<float>(16, 1.0F), {0.1F, 0.5F, 0.9F, 0.2F}};
  for (std::size_t i = 0; i < 4; ++i) all.low_res[8 + i] = 7.0F;
  Postprocessing rules;
  CHECK_EQUAL(choose(all, false, rules).iou[0], 0.1F);
  CHECK_EQUAL(choose(all, true, rules).iou.size(), std::size_t{3});
  rules.first_if_stable = true;
  rules.stability = Stability{2.0, 0.95};  // none of the first mask's logits exceeds 2
  const Decoded chosen = choose(all, false, rules);
  CHECK_EQUAL(chosen.iou[0], 0.9F);
  CHECK_EQUAL(chosen.low_res[0], 7.0F);
  rules.stability->offset = 0.5;  // all of them exceed 0.5
  CHECK_EQUAL(choose(all, false, rules).iou[0], 0.1F);
}

}  // namespace

int main() {
  return glesam_tests::run_tests(
      {{"sha256 vectors", sha256_vectors},
       {"sha256 in pieces", sha256_in_pieces},
       {"sha256 native is portable", sha256_native_is_portable},
       {"text is Python's", text_is_pythons},
       {"hostile safetensors", hostile_safetensors},
       {"a long header is refused", a_long_header_is_refused},
       {"a large golden file is refused", a_large_golden_file_is_refused},
       {"engines without memory", engines_without_memory},
       {"json keeps order and numbers", json_keeps_order_and_numbers},
       {"json is limited", json_is_limited},
       {"batches are filled", batches_are_filled},
       {"upscaling by its definition", upscaling_by_its_definition},
       {"single mask gives way", single_mask_gives_way}});
}
