// The tile unit in plain C++, operation by operation as the processor's manual defines it, so that
// everything of the amx variant but the unit itself is tested on machines without one.
#pragma once

#include <cstdint>
#include <cstring>

namespace visavis {
namespace {

struct TileUnit {
  struct State {};

  struct Tile {
    std::uint8_t bytes[16][64];
  };

  static Tile& tile(int t) {
    static thread_local Tile tiles[8];
    return tiles[t];
  }

  template <int t>
  static void zero() {
    std::memset(tile(t).bytes, 0, sizeof tile(t).bytes);
  }

  template <int t>
  static void load(const void* first_row, std::int64_t stride) {
    const std::uint8_t* from = static_cast<const std::uint8_t*>(first_row);
    for (int row = 0; row < 16; ++row) std::memcpy(tile(t).bytes[row], from + row * stride, 64);
  }

  template <int t>
  static void store(void* first_row, std::int64_t stride) {
    std::uint8_t* to = static_cast<std::uint8_t*>(first_row);
    for (int row = 0; row < 16; ++row) std::memcpy(to + row * stride, tile(t).bytes[row], 64);
  }

  template <int c, int a, int b>
  static void multiply() {
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 16; ++n) {
        std::uint32_t sum;  // wraps around, as the unit's does
        std::memcpy(&sum, &tile(c).bytes[m][4 * n], sizeof sum);
        for (int q = 0; q < 16; ++q) {
          for (int i = 0; i < 4; ++i) {
            const auto x = static_cast<std::int8_t>(tile(a).bytes[m][4 * q + i]);
            sum += static_cast<std::uint32_t>(x * tile(b).bytes[q][4 * n + i]);
          }
        }
        std::memcpy(&tile(c).bytes[m][4 * n], &sum, sizeof sum);
      }
    }
  }
};

}  // namespace
}  // namespace visavis
