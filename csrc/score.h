// The exact arithmetic of docs/score.md: the definition of a score, operation by operation.
//
// Anonymous namespace on purpose: each variant compiles its own copy with its own flags, and a
// shared (weak) symbol could be picked by the linker from a file that older processors cannot run.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernel.h"

static_assert(FLT_EVAL_METHOD == 0, "every operation must round to its own type");

namespace visavis {
namespace {

constexpr double inverse_ln2 = 0x1.71547652b82fep+0;
constexpr double ln2_high = 0x1.62e42fee00000p-1;  // 32 bits: k · ln2_high is exact
constexpr double ln2_low = 0x1.a39ef35793c76p-33;

// 1/n! for n = 13 … 2.
constexpr double exp_terms[12] = {
    0x1.6124613a86d09p-33, 0x1.1eed8eff8d898p-29, 0x1.ae64567f544e4p-26, 0x1.27e4fb7789f5cp-22,
    0x1.71de3a556c734p-19, 0x1.a01a01a01a01ap-16, 0x1.a01a01a01a01ap-13, 0x1.6c16c16c16c17p-10,
    0x1.1111111111111p-7,  0x1.5555555555555p-5,  0x1.5555555555555p-3,  0x1.0000000000000p-1};

// 1/(2n+1) for n = 17 … 1.
constexpr double atanh_terms[17] = {
    0x1.d41d41d41d41dp-6, 0x1.f07c1f07c1f08p-6, 0x1.0842108421084p-5, 0x1.1a7b9611a7b96p-5,
    0x1.2f684bda12f68p-5, 0x1.47ae147ae147bp-5, 0x1.642c8590b2164p-5, 0x1.8618618618618p-5,
    0x1.af286bca1af28p-5, 0x1.e1e1e1e1e1e1ep-5, 0x1.1111111111111p-4, 0x1.3b13b13b13b14p-4,
    0x1.745d1745d1746p-4, 0x1.c71c71c71c71cp-4, 0x1.2492492492492p-3, 0x1.999999999999ap-3,
    0x1.5555555555555p-2};

inline std::uint64_t bits_of(double value) {
  std::uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline double double_of(std::uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The leading 26 bits of the significand: products of two such numbers are exact.
inline double leading_bits(double value) {
  return double_of(bits_of(value) & 0xfffffffff8000000u);
}

// e^y for y ≤ 0; 0 below −708, where e^y would leave the normal range. Free of branches, as is
// log1p_unit, so that loops over scores become vector code with the very same operations.
inline double exp_at(double y) {
  constexpr double to_integer = 0x1.8p52;  // adding and subtracting it rounds half to even
  const bool normal = y >= -708.0;
  y = normal ? y : 0.0;
  const double shifted = y * inverse_ln2 + to_integer;
  const double k = shifted - to_integer;
  const double high = y - k * ln2_high;
  const double low = k * ln2_low;
  const double r = high - low;
  const double correction = (high - r) - low;
  double p = exp_terms[0];
  for (int n = 1; n < 12; ++n) p = p * r + exp_terms[n];
  const double m = 1.0 + (r + (correction + (r * r) * p));
  // The low bits of `shifted` are k: moved to where an exponent stands they are 2^k.
  const double scaled = m * double_of((bits_of(shifted) + 1023) << 52);
  return normal ? scaled : 0.0;
}

// log(1+a) for 0 ≤ a ≤ 1, as 2·atanh(a/(2+a)) with the quotient's rounding error carried along.
inline double log1p_unit(double a) {
  const double t = 2.0 + a;
  const double t_rest = a - (t - 2.0);
  const double s = a / t;
  const double s_high = leading_bits(s);
  const double s_low = s - s_high;
  const double t_high = leading_bits(t);
  const double t_low = t - t_high;
  const double remainder =
      ((((a - s_high * t_high) - s_high * t_low) - s_low * t_high) - s_low * t_low) - s * t_rest;
  const double s_rest = remainder / t;
  const double z = s * s;
  double p = atanh_terms[0];
  for (int n = 1; n < 17; ++n) p = p * z + atanh_terms[n];
  const double sum = 2.0 * s + (2.0 * s_rest + (2.0 * s) * (z * p));
  return a < 0x1p-54 ? a : sum;
}

// log(1+x) for x ≥ 0: beyond 1, the binary exponent is taken out first.
inline double log1p_at(double x) {
  if (x <= 1.0) return log1p_unit(x);
  const double u = 1.0 + x;
  const std::int64_t k = static_cast<std::int64_t>(bits_of(u) >> 52) - 1023;
  const double m = double_of((bits_of(u) & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  const double exponent = static_cast<double>(k);
  return exponent * ln2_high + (log1p_unit(m - 1.0) + exponent * ln2_low);
}

// Σ x_d·w_d over `padded_columns` (a multiple of 8) columns; w as float32, or widened already.
template <typename Weight>
inline double dot(const double* x, const Weight* w, std::int64_t padded_columns) {
  double sum[lane_count] = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
  for (std::int64_t d = 0; d < padded_columns; d += lane_count) {
    for (int lane = 0; lane < lane_count; ++lane) {
      sum[lane] += x[d + lane] * static_cast<double>(w[d + lane]);
    }
  }
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

struct Score {
  double expected_value;
  double propensity;
};

// From the linear predictor z to what is worth doing: one division, one exponential.
inline Score score_at(double z, Link link, double value, double cost) {
  double propensity = z;
  double g = z;
  if (link != Link::identity) {
    const double a = exp_at(-std::fabs(z));
    propensity = (z >= 0.0 ? 1.0 : a) / (1.0 + a);
    g = link == Link::logistic ? propensity : (z > 0.0 ? z : 0.0) + log1p_unit(a);
  }
  const double ev = g * value - cost;
  return {ev == 0.0 ? 0.0 : ev, propensity};
}

// score_at for `count` pairs of one link, in the same operations side by side.
template <Link link>
inline void scores_at(std::int64_t count, const double* z, const double* value,
                      const double* cost, double* expected_value, double* propensity) {
  for (std::int64_t i = 0; i < count; ++i) {
    const Score score = score_at(z[i], link, value[i], cost[i]);
    expected_value[i] = score.expected_value;
    propensity[i] = score.propensity;
  }
}

}  // namespace
}  // namespace visavis
