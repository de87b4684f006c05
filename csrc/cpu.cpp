#include "cpu.h"

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace visavis {
namespace {

#if defined(__x86_64__)

struct Registers {
  unsigned a, b, c, d;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r{0, 0, 0, 0};
  if (__get_cpuid_max(leaf & 0x80000000u, nullptr) >= leaf) {
    __cpuid_count(leaf, subleaf, r.a, r.b, r.c, r.d);
  }
  return r;
}

// Which register states the operating system saves: a feature whose registers it does not save must
// not be used, whatever cpuid says.
std::uint64_t saved_states() {
  if ((cpuid(1, 0).c >> 27 & 1) == 0) return 0;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32 | low;
}

constexpr std::uint64_t ymm_states = 0x6;
constexpr std::uint64_t zmm_states = 0xe6;
constexpr std::uint64_t tile_states = 0x60000;

struct Feature {
  const char* name;
  unsigned leaf;  // subleaf 0
  char place;     // of the register: b, c or d
  int bit;
  std::uint64_t states;
};

constexpr Feature avx2_features[] = {
    {"fma", 1, 'c', 12, ymm_states},
    {"avx2", 7, 'b', 5, ymm_states},
    {"bmi2", 7, 'b', 8, 0},
};
constexpr Feature avx512_features[] = {
    {"avx512f", 7, 'b', 16, zmm_states},  {"avx512dq", 7, 'b', 17, zmm_states},
    {"avx512bw", 7, 'b', 30, zmm_states}, {"avx512vl", 7, 'b', 31, zmm_states},
    {"avx512vnni", 7, 'c', 11, zmm_states},
};

constexpr Feature amx_features[] = {
    {"amx-tile", 7, 'd', 24, tile_states},
    {"amx-int8", 7, 'd', 25, tile_states},
};

// Linux gives the 8 KiB of tile data to processes that ask; forked children keep the permission.
bool tiles_permitted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

bool has(const Feature& feature) {
  const Registers r = cpuid(feature.leaf, 0);
  const unsigned word = feature.place == 'b' ? r.b : feature.place == 'c' ? r.c : r.d;
  return (word >> feature.bit & 1) != 0 && (saved_states() & feature.states) == feature.states;
}

template <std::size_t n>
const char* first_missing(const Feature (&features)[n]) {
  for (const Feature& feature : features) {
    if (!has(feature)) return feature.name;
  }
  return nullptr;
}

template <std::size_t n>
char* append_names(const Feature (&features)[n], char* out) {
  for (const Feature& feature : features) {
    if (!has(feature)) continue;
    for (const char* c = feature.name; *c != 0; ++c) *out++ = *c;
    *out++ = ' ';
  }
  return out;
}

const char* find_lacks_amx() {
  if (lacks_avx512() != nullptr) return lacks_avx512();
  const char* missing = first_missing(amx_features);
  if (missing != nullptr) return missing;
  return tiles_permitted() ? nullptr : "the operating system's permission to use tiles";
}

#endif

}  // namespace

#if defined(__x86_64__)

const char* lacks_avx2() {
  static const char* const missing = first_missing(avx2_features);
  return missing;
}

const char* lacks_avx512() {
  static const char* const missing =
      lacks_avx2() != nullptr ? lacks_avx2() : first_missing(avx512_features);
  return missing;
}

const char* lacks_amx() {
  static const char* const missing = find_lacks_amx();
  return missing;
}

const char* processor_features() {
  static char names[256];
  static const char* const made = [] {
    char* end = append_names(avx2_features, names);
    end = append_names(amx_features, append_names(avx512_features, end));
    *(end == names ? end : end - 1) = 0;
    return names;
  }();
  return made;
}

#else

const char* lacks_avx2() { return "x86-64"; }
const char* lacks_avx512() { return "x86-64"; }
const char* lacks_amx() { return "x86-64"; }
const char* processor_features() { return ""; }

#endif

}  // namespace visavis
