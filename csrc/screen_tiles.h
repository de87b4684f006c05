// Screening with a tile unit: 32 rows by 64 places, 16 × 16 sums at a time.
#pragma once

#include <cstdint>

#include "primitives_avx512.h"
#include "screen_audience.h"
#include "screen_match.h"
#include "verify.h"

namespace visavis {
namespace {

template <class Unit>
struct Tiles : Avx512Primitives {
  using State = typename Unit::State;

  static constexpr std::int64_t rows = 32;
  static constexpr int largest_step = 127;

  // sums[t][place] = Σ_d weight[place][d] · x[t][d], for `together` rows; rows beyond are garbage.
  static void tile(const std::int8_t* x, std::int64_t stride, std::int64_t together,
                   const std::uint8_t* weights, std::int64_t columns, std::int32_t* sums) {
    // Columns are padded to whole tiles, with zeros in x.
    const std::int64_t steps = (columns + 63) / 64;
    for (std::int64_t half = 0; half < 2; ++half) {
      const std::uint8_t* w = weights + 128 * half;
      if (together > 16) {
        multiply<2>(x, stride, w, steps, sums + 32 * half);
      } else {
        multiply<1>(x, stride, w, steps, sums + 32 * half);
      }
    }
  }

 private:
  static constexpr std::int64_t line = 4 * places;       // bytes from four columns to the next four
  static constexpr std::int64_t tile_lines = 16 * line;  // bytes from one tile's columns to the next
  static constexpr std::int64_t row_bytes = 4 * places;  // of sums

  // 16 or 32 rows by 32 places. Registers 0–3 hold sums, 4 and 5 rows, 6 and 7 weights.
  template <int row_tiles>
  static void multiply(const std::int8_t* x, std::int64_t stride, const std::uint8_t* weights,
                       std::int64_t steps, std::int32_t* sums) {
    constexpr bool both = row_tiles == 2;
    Unit::template zero<0>();
    Unit::template zero<1>();
    if (both) Unit::template zero<2>();
    if (both) Unit::template zero<3>();
    for (std::int64_t step = 0; step < steps; ++step) {
      Unit::template load<4>(x + 64 * step, stride);
      Unit::template load<6>(weights + step * tile_lines, line);
      Unit::template load<7>(weights + step * tile_lines + 64, line);
      Unit::template multiply<0, 4, 6>();
      Unit::template multiply<1, 4, 7>();
      if (both) Unit::template load<5>(x + 16 * stride + 64 * step, stride);
      if (both) Unit::template multiply<2, 5, 6>();
      if (both) Unit::template multiply<3, 5, 7>();
    }
    Unit::template store<0>(sums, row_bytes);
    Unit::template store<1>(sums + 16, row_bytes);
    if (both) Unit::template store<2>(sums + 16 * places, row_bytes);
    if (both) Unit::template store<3>(sums + 16 * places + 16, row_bytes);
  }
};

}  // namespace
}  // namespace visavis
