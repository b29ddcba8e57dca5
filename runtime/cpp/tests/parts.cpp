// Tests the parts of everything-mode, of polygons and of stopping against plain definitions.
#include <cmath>
#include <random>
#include <set>
#include <thread>

#include "check.h"
#include "errors.h"
#include "everything_plan.h"
#include "mask_codes.h"
#include "outline.h"
#include "spans.h"
#include "stop.h"
#include "worker.h"

namespace {

using namespace glesam;

struct Mask {
  int height = 0, width = 0;
  std::vector<std::uint8_t> pixels;
  std::uint8_t& at(int y, int x) { return pixels[static_cast<std::size_t>(y * width + x)]; }
};

Mask random_mask(std::mt19937& random) {
  Mask mask;
  mask.height = static_cast<int>(random() % 9 + 1);
  mask.width = static_cast<int>(random() % 9 + 1);
  const unsigned share = random() % 5;
  for (int i = 0; i < mask.height * mask.width; ++i) mask.pixels.push_back(random() % 4 < share);
  return mask;
}

Spans spans_of(const Mask& mask) {
  return glesam::spans_of(mask.pixels.data(), static_cast<std::size_t>(mask.width),
                          {0, 0, mask.width, mask.height}, mask.height);
}

void spans_are_the_mask() {
  std::mt19937 random(1);
  for (int i = 0; i < 500; ++i) {
    const Mask mask = random_mask(random);
    const Spans spans = spans_of(mask);
    CHECK(mask_of(spans, mask.height, mask.width) == mask.pixels);
    RleWriter rows(static_cast<std::size_t>(mask.height), static_cast<std::size_t>(mask.width));
    for (int y = 0; y < mask.height; ++y) rows.add_row(mask.pixels.data() + y * mask.width);
    CHECK_EQUAL(rle_of(spans, mask.height * mask.width), rows.counts());
  }
}

// Removes the regions of `value` with fewer pixels, one pixel after the other.
bool drop_small(Mask& mask, std::uint8_t value, int least, bool keep_largest) {
  Mask left = mask;
  std::vector<std::vector<std::pair<int, int>>> regions;
  for (int y = 0; y < mask.height; ++y) {
    for (int x = 0; x < mask.width; ++x) {
      if (left.at(y, x) != value) continue;
      std::vector<std::pair<int, int>> region{{y, x}};
      left.at(y, x) = static_cast<std::uint8_t>(2);
      for (std::size_t i = 0; i < region.size(); ++i) {
        for (int dy = -1; dy <= 1; ++dy) {
          for (int dx = -1; dx <= 1; ++dx) {
            const int ny = region[i].first + dy, nx = region[i].second + dx;
            if (ny < 0 || nx < 0 || ny >= mask.height || nx >= mask.width) continue;
            if (left.at(ny, nx) != value) continue;
            left.at(ny, nx) = static_cast<std::uint8_t>(2);
            region.emplace_back(ny, nx);
          }
        }
      }
      regions.push_back(std::move(region));
    }
  }
  bool any = false, changed = false;
  for (const auto& region : regions) any |= static_cast<int>(region.size()) >= least;
  if (keep_largest && !any && regions.size() != 1) return false;  // ties: not this oracle's matter
  for (const auto& region : regions) {
    if (static_cast<int>(region.size()) >= least || (keep_largest && !any)) continue;
    for (const auto& [y, x] : region) mask.at(y, x) = static_cast<std::uint8_t>(1 - value);
    changed = true;
  }
  return changed;
}

void small_regions_go() {
  std::mt19937 random(2);
  int compared = 0;
  for (int i = 0; i < 2000; ++i) {
    Mask mask = random_mask(random), wanted = mask;
    const int least = static_cast<int>(random() % 6);
    drop_small(wanted, 0, least, false);
    const Mask filled = wanted;
    drop_small(wanted, 1, least, true);
    Spans spans = spans_of(mask);
    const bool changed = tidy(spans, mask.height, mask.width, least);
    const auto made = mask_of(spans, mask.height, mask.width);
    if (!changed) CHECK(made == mask.pixels);
    // Where all islands are small, one of them stays.
    if (wanted.pixels == filled.pixels && made != filled.pixels) {
      CHECK(!spans.empty() && area_of(spans) < least);
      continue;
    }
    CHECK(made == wanted.pixels);
    ++compared;
  }
  CHECK(compared > 1000);
}

void outlines_fill_to_the_mask() {
  std::mt19937 random(3);
  for (int i = 0; i < 1000; ++i) {
    Mask mask = random_mask(random);
    OutlineWriter writer(static_cast<std::size_t>(mask.width));
    for (int y = 0; y < mask.height; ++y) writer.add_row(mask.pixels.data() + y * mask.width);
    const std::vector<Ring> rings = writer.rings();
    for (const Ring& ring : rings) CHECK(ring.size() >= 4 && ring.size() % 2 == 0);
    for (int y = 0; y < mask.height; ++y) {
      for (int x = 0; x < mask.width; ++x) {
        bool inside = false;  // crossings of vertical edges to the left of the pixel's centre
        for (const Ring& ring : rings) {
          for (std::size_t k = 0; k < ring.size(); ++k) {
            const Corner &a = ring[k], &b = ring[(k + 1) % ring.size()];
            CHECK((a.x == b.x) != (a.y == b.y));
            if (a.x == b.x && a.x <= x && std::min(a.y, b.y) <= y && y < std::max(a.y, b.y)) {
              inside = !inside;
            }
          }
        }
        CHECK_EQUAL(inside, mask.at(y, x) != 0);
      }
    }
  }
}

void crops_cover_the_image() {
  Manifest manifest;
  EverythingParams params;
  params.crop_n_layers = 2;
  params.points_per_side = 4;
  const SearchPlan plan = plan_search(params, manifest, {37, 101});
  CHECK_EQUAL(plan.crops.size(), std::size_t{1 + 4 + 16});
  CHECK_EQUAL(plan.grids.size(), std::size_t{3});
  CHECK_EQUAL(plan.grids[2].size(), std::size_t{2 * 16});
  CHECK_EQUAL(plan.pred_iou_thresh, 0.88);
  for (std::size_t layer = 1; layer <= 2; ++layer) {
    std::set<std::pair<std::int64_t, std::int64_t>> covered;
    for (const Crop& crop : plan.crops) {
      if (crop.layer != layer) continue;
      for (std::int64_t y = crop.y0; y < crop.y1; ++y) {
        for (std::int64_t x = crop.x0; x < crop.x1; ++x) covered.emplace(y, x);
      }
    }
    CHECK_EQUAL(covered.size(), std::size_t{37 * 101});
  }
}

void calls_end_early() {
  Stop stop;
  stop.begin(0);
  stop.check();
  stop.cancel();
  CHECK(stop.is_set());
  try {
    stop.check();
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == Code::cancelled);
  }
  std::atomic<int> interrupted{0};
  { const Stop::Watch watch(stop, [&] { ++interrupted; }); }
  stop.begin(0.02);
  CHECK(!stop.is_set());
  {
    const Stop::Watch watch(stop, [&] { interrupted += 10; });
    while (interrupted < 10) std::this_thread::yield();
  }
  CHECK(stop.is_set());
  stop.begin(1000);
  { const Stop::Watch watch(stop, [&] { interrupted += 100; }); }
  CHECK(interrupted < 100);
}

void a_worker_runs_tasks() {
  std::atomic<int> ran{0};
  {
    Worker worker;
    for (int i = 0; i < 100; ++i) {
      worker.run([&ran] { ++ran; });
      while (ran <= i) std::this_thread::yield();
    }
  }
  CHECK_EQUAL(ran.load(), 100);
  auto own = std::make_unique<Worker>();
  std::atomic<bool> done{false};
  Worker* const worker = own.get();
  worker->run([&] {
    own.reset();  // a task may destroy its worker
    done = true;
  });
  while (!done) std::this_thread::yield();
}

}  // namespace

int main() {
  return glesam_tests::run_tests({{"spans are the mask", spans_are_the_mask},
                                  {"small regions go", small_regions_go},
                                  {"outlines fill to the mask", outlines_fill_to_the_mask},
                                  {"crops cover the image", crops_cover_the_image},
                                  {"calls end early", calls_end_early},
                                  {"a worker runs tasks", a_worker_runs_tasks}});
}
