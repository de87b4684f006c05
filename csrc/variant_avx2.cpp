// AVX2: 32 products of 8-bit integers in three instructions.
#include <immintrin.h>

#include "cpu.h"
#include "kernel.h"
#include "screen_audience.h"
#include "screen_match.h"
#include "verify.h"

namespace visavis {
namespace {

struct Avx2 {
  struct State {};

  static constexpr std::int64_t rows = 2;
  // Two products are added in 16 bits, which saturate: 2 · 255 · 63 is the most that fits.
  static constexpr int largest_step = 63;

  // sums[t][place] = Σ_d weight[place][d] · x[t][d], for `together` rows.
  static void tile(const std::int8_t* x, std::int64_t stride, std::int64_t together,
                   const std::uint8_t* weights, std::int64_t columns, std::int32_t* sums) {
    for (std::int64_t half = 0; half < 2; ++half) {
      if (together == 2) {
        tile_of<2>(x, stride, weights + 128 * half, columns, sums + 32 * half);
      } else {
        tile_of<1>(x, stride, weights + 128 * half, columns, sums + 32 * half);
      }
    }
  }

  // 32 places: two rows by four vectors are eight accumulators of sixteen registers.
  template <int count>
  static void tile_of(const std::int8_t* x, std::int64_t stride, const std::uint8_t* weights,
                      std::int64_t columns, std::int32_t* sums) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[count][4];
#pragma GCC unroll 8
    for (int t = 0; t < count; ++t) {
#pragma GCC unroll 8
      for (int v = 0; v < 4; ++v) sum[t][v] = _mm256_setzero_si256();
    }
    for (std::int64_t d = 0; d < columns; d += 4) {
      const std::uint8_t* line = weights + d * places;
      __m256i row[count];
#pragma GCC unroll 8
      for (int t = 0; t < count; ++t) {
        std::int32_t four;
        std::memcpy(&four, x + t * stride + d, sizeof four);
        row[t] = _mm256_set1_epi32(four);
      }
#pragma GCC unroll 8
      for (int v = 0; v < 4; ++v) {
        const __m256i w = _mm256_load_si256(reinterpret_cast<const __m256i*>(line + 32 * v));
#pragma GCC unroll 8
        for (int t = 0; t < count; ++t) {
          const __m256i pairs = _mm256_maddubs_epi16(w, row[t]);
          sum[t][v] = _mm256_add_epi32(sum[t][v], _mm256_madd_epi16(pairs, ones));
        }
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < count; ++t) {
#pragma GCC unroll 8
      for (int v = 0; v < 4; ++v) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(sums + t * places + 8 * v), sum[t][v]);
      }
    }
  }

  // Which places have !(scale·(sum − offset) < base − slope·b): NaN keeps.
  static std::uint64_t scan(const std::int32_t* sums, std::int32_t offset, const float* scale,
                            const float* bias, float base, float slope) {
    const __m256i offsets = _mm256_set1_epi32(offset);
    const __m256 bases = _mm256_set1_ps(base);
    const __m256 slopes = _mm256_set1_ps(slope);
    std::uint64_t kept = 0;
    for (int v = 0; v < 8; ++v) {
      const __m256i* at = reinterpret_cast<const __m256i*>(sums + 8 * v);
      const __m256i sum = _mm256_sub_epi32(_mm256_load_si256(at), offsets);
      const __m256 least = _mm256_fnmadd_ps(slopes, _mm256_loadu_ps(bias + 8 * v), bases);
      const __m256 reached =
          _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(scale + 8 * v));
      const __m256 mask = _mm256_cmp_ps(reached, least, _CMP_NLT_UQ);
      kept |= static_cast<std::uint64_t>(static_cast<unsigned>(_mm256_movemask_ps(mask)))
              << (8 * v);
    }
    return kept;
  }

  // score.h's dot of one x with four rows of weights, bit for bit: eight partial sums are two
  // vectors, and a product of two float32 is exact in float64.
  static void dots(const double* x, const float* const w[4], std::int64_t padded_columns,
                   double sum[4]) {
    __m256d low[4];
    __m256d high[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) low[i] = high[i] = _mm256_setzero_pd();
    for (std::int64_t d = 0; d < padded_columns; d += 8) {
      const __m256d x_low = _mm256_loadu_pd(x + d);
      const __m256d x_high = _mm256_loadu_pd(x + d + 4);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        low[i] = _mm256_fmadd_pd(x_low, _mm256_cvtps_pd(_mm_loadu_ps(w[i] + d)), low[i]);
        high[i] = _mm256_fmadd_pd(x_high, _mm256_cvtps_pd(_mm_loadu_ps(w[i] + d + 4)), high[i]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      double p[8];
      _mm256_storeu_pd(p, low[i]);
      _mm256_storeu_pd(p + 4, high[i]);
      sum[i] = ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]));
    }
  }
};

}  // namespace

const Variant variant_avx2 = {
    "avx2", lacks_avx2, true, screened_match<Avx2>, verified_match<Avx2>, screened_audience<Avx2>,
    exhaustive_scores,
};

}  // namespace visavis
