// AVX-512 with VNNI: 64 products of 8-bit integers an instruction.
#include <immintrin.h>

#include "cpu.h"
#include "kernel.h"
#include "primitives_avx512.h"
#include "screen_audience.h"
#include "screen_match.h"
#include "verify.h"

namespace visavis {
namespace {

struct Avx512 : Avx512Primitives {
  struct State {};

  // Six rows by four vectors are 24 accumulators; with four vectors of weights and a broadcast row
  // 29 of 32 registers.
  static constexpr std::int64_t rows = 6;
  static constexpr int largest_step = 127;

  // sums[t][place] = Σ_d weight[place][d] · x[t][d], for `together` rows.
  static void tile(const std::int8_t* x, std::int64_t stride, std::int64_t together,
                   const std::uint8_t* weights, std::int64_t columns, std::int32_t* sums) {
    switch (together) {
      case 6: return tile_of<6>(x, stride, weights, columns, sums);
      case 5: return tile_of<5>(x, stride, weights, columns, sums);
      case 4: return tile_of<4>(x, stride, weights, columns, sums);
      case 3: return tile_of<3>(x, stride, weights, columns, sums);
      case 2: return tile_of<2>(x, stride, weights, columns, sums);
      default: return tile_of<1>(x, stride, weights, columns, sums);
    }
  }

  template <int count>
  static void tile_of(const std::int8_t* x, std::int64_t stride, const std::uint8_t* weights,
                      std::int64_t columns, std::int32_t* sums) {
    __m512i sum[count][4];
#pragma GCC unroll 8
    for (int t = 0; t < count; ++t) {
#pragma GCC unroll 8
      for (int v = 0; v < 4; ++v) sum[t][v] = _mm512_setzero_si512();
    }
    for (std::int64_t d = 0; d < columns; d += 4) {
      const std::uint8_t* line = weights + d * places;
      __m512i w[4];
#pragma GCC unroll 8
      for (int v = 0; v < 4; ++v) w[v] = _mm512_load_si512(line + 64 * v);
#pragma GCC unroll 8
      for (int t = 0; t < count; ++t) {
        std::int32_t four;
        std::memcpy(&four, x + t * stride + d, sizeof four);
        const __m512i row = _mm512_set1_epi32(four);
#pragma GCC unroll 8
        for (int v = 0; v < 4; ++v) sum[t][v] = _mm512_dpbusd_epi32(sum[t][v], w[v], row);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < count; ++t) {
#pragma GCC unroll 8
      for (int v = 0; v < 4; ++v) _mm512_store_si512(sums + t * places + 16 * v, sum[t][v]);
    }
  }
};

}  // namespace

const Variant variant_avx512 = {
    "avx512", lacks_avx512, true, screened_match<Avx512>, verified_match<Avx512>,
    screened_audience<Avx512>, exhaustive_scores,
};

}  // namespace visavis
