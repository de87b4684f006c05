// What the variants with AVX-512 share: the scan of sums, and the exact dot of several pairs.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace visavis {
namespace {

// Which of 64 places have !(scale·(sum − offset) < base − slope·b): NaN keeps. `sums` is 64-byte
// aligned.
inline std::uint64_t scan_avx512(const std::int32_t* sums, std::int32_t offset, const float* scale,
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

// score.h's dot of one x with four rows of weights, bit for bit: eight partial sums are eight lanes,
// and a product of two float32 is exact in float64, so that the fused operation rounds as the two.
inline void dots_avx512(const double* x, const float* const w[4], std::int64_t padded_columns,
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
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    double p[8];
    _mm512_storeu_pd(p, lanes[i]);
    sum[i] = ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]));
  }
}

}  // namespace
}  // namespace visavis
