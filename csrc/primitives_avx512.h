// What the variants with AVX-512 share: the scan of sums, and the exact dot of several pairs.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace visavis {
namespace {

struct Avx512Primitives {
  // Which of 64 places have !(scale·(sum − offset) < base − slope·b): NaN keeps. `sums` is 64-byte
  // aligned.
  static std::uint64_t scan(const std::int32_t* sums, std::int32_t offset, const float* scale,
                            const float* bias, float base, float slope) {
    const __m512i offsets = _mm512_set1_epi32(offset);
    const __m512 bases = _mm512_set1_ps(base);
    const __m512 slopes = _mm512_set1_ps(slope);
    std::uint64_t kept = 0;
    for (int v = 0; v < 4; ++v) {
      const __m512i sum = _mm512_sub_epi32(_mm512_load_si512(sums + 16 * v), offsets);
      const __m512 least = _mm512_fnmadd_ps(slopes, _mm512_loadu_ps(bias + 16 * v), bases);
      // The masked form, for the plain one warns of an undefined register in GCC 12's own header.
      const __m512 reached =
          _mm512_mul_ps(_mm512_maskz_cvtepi32_ps(0xffff, sum), _mm512_loadu_ps(scale + 16 * v));
      const __mmask16 mask = _mm512_cmp_ps_mask(reached, least, _CMP_NLT_UQ);
      kept |= static_cast<std::uint64_t>(mask) << (16 * v);
    }
    return kept;
  }

  // score.h's dot of one x with four rows of weights, bit for bit: eight partial sums are eight
  // lanes, and a product of two float32 is exact in float64, so that fused and not round alike.
  static void dots(const double* x, const float* const w[4], std::int64_t padded_columns,
                   double sum[4]) {
    __m512d lanes[4] = {_mm512_setzero_pd(), _mm512_setzero_pd(), _mm512_setzero_pd(),
                        _mm512_setzero_pd()};
    for (std::int64_t d = 0; d < padded_columns; d += 8) {
      const __m512d eight = _mm512_loadu_pd(x + d);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const __m512d wide = _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(w[i] + d));
        lanes[i] = _mm512_fmadd_pd(eight, wide, lanes[i]);
      }
    }
    // ((0+1)+(2+3))+((4+5)+(6+7)) of all four at once: neighbours first, i.e. pair sums p0 … p3.
    const __m512d first = _mm512_add_pd(_mm512_maskz_unpacklo_pd(0xff, lanes[0], lanes[1]),
                                        _mm512_maskz_unpackhi_pd(0xff, lanes[0], lanes[1]));
    const __m512d second = _mm512_add_pd(_mm512_maskz_unpacklo_pd(0xff, lanes[2], lanes[3]),
                                         _mm512_maskz_unpackhi_pd(0xff, lanes[2], lanes[3]));
    const __m512i even = _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13);
    const __m512i odd = _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15);
    const __m512d halves = _mm512_add_pd(_mm512_permutex2var_pd(first, even, second),
                                         _mm512_permutex2var_pd(first, odd, second));
    // p0+p1 and p2+p3 of the first, of the second; then of the third and the fourth.
    const __m512i low = _mm512_setr_epi64(0, 1, 4, 5, 0, 1, 4, 5);
    const __m512i high = _mm512_setr_epi64(2, 3, 6, 7, 2, 3, 6, 7);
    const __m512d whole = _mm512_add_pd(_mm512_maskz_permutexvar_pd(0xff, low, halves),
                                        _mm512_maskz_permutexvar_pd(0xff, high, halves));
    _mm512_mask_storeu_pd(sum, 0x0f, whole);
  }
};

}  // namespace
}  // namespace visavis
