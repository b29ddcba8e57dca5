#include "input_limits.h"

#include <limits>

#include "errors.h"
#include "text.h"

namespace glesam {
namespace {

// Returns the value of a limit; 0 stands for the default.
std::uint64_t value_of(const Limit& limit, const Limits& limits) {
  const std::size_t given = limits.*limit.value;
  return given != 0 ? given : Limits{}.*limit.value;
}

}  // namespace

std::uint64_t largest(const Limit& limit, const Limits& limits) {
  const std::uint64_t value = value_of(limit, limits);
  const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  return value > most / limit.unit ? most : value * limit.unit;
}

void check_limit(const Limit& limit, const Limits& limits, std::uint64_t size,
                 const std::string& where) {
  if (size <= largest(limit, limits)) return;
  throw Error(limit.code,
              cat(where, ", more than the limit of ", value_of(limit, limits), " ", limit.name,
                  "; raise limits.", limit.field, " in the parameters if there is memory for it"));
}

}  // namespace glesam
