// The processor's tile unit, as screen_tiles.h uses it: eight registers of 16 rows × 64 bytes.
#pragma once

#include <cstdint>

namespace visavis {
namespace {

struct alignas(64) TileConfiguration {
  std::uint8_t palette;
  std::uint8_t start_row;
  std::uint8_t reserved[14];
  std::uint16_t row_bytes[16];
  std::uint8_t rows[16];
};

// Constant, not filled at run time: GCC 12 may drop the stores before ldtilecfg.
constexpr TileConfiguration all_tiles_whole = {
    1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// Written as assembly, because the intrinsics of GCC 12 take register numbers as literal text only,
// and do not tell the compiler that loading a tile reads memory.
struct TileUnit {
  // Configured for as long as it lives; released so that the thread's state costs nothing after.
  struct State {
    State() { asm volatile("ldtilecfg %0" : : "m"(all_tiles_whole)); }
    ~State() { asm volatile("tilerelease"); }
    State(const State&) = delete;
    State& operator=(const State&) = delete;
  };

  template <int t>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(t));
  }

  template <int t>
  static void load(const void* first_row, std::int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
                 :
                 : "r"(first_row), "r"(stride), "i"(t)
                 : "memory");
  }

  template <int t>
  static void store(void* first_row, std::int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
                 :
                 : "r"(first_row), "r"(stride), "i"(t)
                 : "memory");
  }

  // c[m][n] += Σ a[m][4q+i] · b[q][4n+i], a signed and b unsigned bytes, in 32 bits.
  template <int c, int a, int b>
  static void multiply() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
  }
};

}  // namespace
}  // namespace visavis
