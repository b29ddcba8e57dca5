#include "cpu.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

namespace glesam {

bool adds_bytes_exactly() {
#if defined(__x86_64__) && defined(__GNUC__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  const bool avx512_vnni = (c & 1u << 11) != 0, amx_int8 = (d & 1u << 25) != 0;
  const bool more = a >= 1;  // leaf 7 has subleaf 1
  const bool avx_vnni =
      more && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1u << 4) != 0;
  return avx512_vnni || amx_int8 || avx_vnni;
#elif defined(__x86_64__) || defined(_M_X64) || defined(__i386__) || defined(_M_IX86)
  return false;
#else
  return true;
#endif
}

}  // namespace glesam
