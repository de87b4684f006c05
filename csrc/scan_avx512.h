// The comparison of sums with a row's threshold in AVX-512, for the variants that have it.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace visavis {
namespace {

// Which of 64 places have !(sum − offset < base − slope·b): NaN keeps. `sums` is 64-byte aligned.
inline std::uint64_t scan_avx512(const std::int32_t* sums, std::int32_t offset, const float* bias,
                                 float base, float slope) {
  const __m512i offsets = _mm512_set1_epi32(offset);
  const __m512 bases = _mm512_set1_ps(base);
  const __m512 slopes = _mm512_set1_ps(slope);
  std::uint64_t kept = 0;
  for (int v = 0; v < 4; ++v) {
    const __m512i sum = _mm512_sub_epi32(_mm512_load_si512(sums + 16 * v), offsets);
    const __m512 least = _mm512_fnmadd_ps(slopes, _mm512_loadu_ps(bias + 16 * v), bases);
    // The masked form, for the plain one warns of an undefined register in GCC 12's own header.
    const __m512 reached = _mm512_maskz_cvtepi32_ps(0xffff, sum);
    const __mmask16 mask = _mm512_cmp_ps_mask(reached, least, _CMP_NLT_UQ);
    kept |= static_cast<std::uint64_t>(mask) << (16 * v);
  }
  return kept;
}

}  // namespace
}  // namespace visavis
