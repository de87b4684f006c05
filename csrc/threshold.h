// From a threshold in expected value to one in z, and how the K-th largest of some bounds is found.
//
// Everything here errs to one side: too low a threshold costs a verification, too high a one would
// lose an opportunity. The margins are derived in docs/kernel.md, "Thresholds".
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "kernel.h"
#include "score.h"

namespace visavis {
namespace {

// log(v) for normal v > 0, within 2^-26 absolutely: 2·atanh((m−1)/(m+1)) with m in [√½, √2).
inline double log_near(double v) {
  const std::uint64_t bits = bits_of(v) + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
  const double m = double_of((bits & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu);
  // The exponent, without a conversion from 64-bit integers, which AVX2 lacks.
  const double exponent = double_of((bits >> 52) | 0x4330000000000000u) - (0x1p52 + 1023.0);
  const double s = (m - 1.0) / (m + 1.0);
  const double q = s * s;
  const double p = 2.0 + q * (2.0 / 3.0 + q * (2.0 / 5.0 + q * (2.0 / 7.0 + q * (2.0 / 9.0))));
  return exponent * 0x1.62e42fefa39efp-1 + s * p;
}

// Σ p^n/n! for n = 1 … 8: not above e^p − 1 for p ≥ 0.
inline double expm1_below(double p) {
  double sum = 1.0 / 40320.0;
  constexpr double terms[7] = {1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0};
  for (double term : terms) sum = sum * p + term;
  return sum * p;
}

// The float32 next above a number that is not negative.
inline float rounded_up(double value) {
  return std::nextafter(static_cast<float>(value), INFINITY);
}

// A float32 below a number; NaN where float32 cannot hold it.
inline float rounded_down(double value) {
  const float rounded = static_cast<float>(value);
  return (rounded - std::fabs(rounded) * 0x1p-22f) - 0x1p-120f;
}

// What a block's capabilities have in common, as bounds.
struct Worth {
  double value_max;
  double value_min;
  double cost_min;
};

// A z below which every pair of the block has an expected value strictly below t, in the rounded
// arithmetic of docs/score.md; −∞ if there is none, +∞ if every pair has. Free of branches.
template <Link link>
inline float least_predictor(double t, const Worth& worth) {
  // What is to be gained before costs, lowered by more than the roundings of the score can add.
  const double gain =
      (t + worth.cost_min) - 0x1p-48 * (std::fabs(t) + std::fabs(worth.cost_min));
  double z;
  if (link == Link::identity) {
    z = gain / (gain > 0.0 ? worth.value_max : worth.value_min);
    z = z < INFINITY ? z - 0x1p-40 * std::fabs(z) : z;
    // Nothing to gain: products with a tiny value may vanish, and −0.0 is 0.
    z = gain == 0.0 ? (worth.value_min > 0x1p-600 ? -0x1p-120 : -INFINITY) : z;
  } else {
    const double g = (gain / worth.value_max) * (1.0 - 0x1p-44);
    if (link == Link::logistic) {
      const double p = g < 0x1p-100 ? 0.5 : (g > 1.0 ? 0.5 : g);
      const double q = 1.0 - p < 0x1p-20 ? 0x1p-20 : 1.0 - p;
      z = log_near(p) - log_near(q);
    } else {
      const double small = g < 0x1p-100 ? 1.0 : (g < 8.0 ? g : 8.0);
      const double grown = expm1_below(small);
      const double near_zero = log_near(grown);
      const double far = g + log_near(grown / (1.0 + grown));
      z = g < 1.5 ? near_zero : far;
    }
    z = (z - 0x1p-24) - 0x1p-24 * std::fabs(z);
    // Out of reach: more than a sigmoid ever gives, or anything at all where the value is 0.
    const double most = link == Link::logistic ? 1.0 : DBL_MAX;
    z = g > most ? INFINITY : z;
    // Not above 2^-100, or NaN.
    z = g >= 0x1p-100 ? z : -INFINITY;
  }
  // So small that the margins themselves would vanish.
  const double size = std::fabs(t) + std::fabs(worth.cost_min);
  z = size > 0.0 && size < 0x1p-900 ? -INFINITY : z;
  // +∞ stays; NaN (0/0, ∞ − ∞) admits everything, as does what float32 can hardly hold.
  constexpr double largest = 1e37;
  const double bounded = z > largest ? largest : z;
  const float lowered = rounded_down(bounded);
  return z == INFINITY ? INFINITY : (z > -largest ? lowered : -INFINITY);
}

inline float least_predictor_of(Link link, double t, const Worth& worth) {
  if (link == Link::logistic) return least_predictor<Link::logistic>(t, worth);
  if (link == Link::count) return least_predictor<Link::count>(t, worth);
  return least_predictor<Link::identity>(t, worth);
}

// Integers in the order of the floats they stand for; NaN stands below all.
inline std::int32_t ordered(float key) {
  std::int32_t bits;
  std::memcpy(&bits, &key, sizeof bits);
  const std::int32_t flipped = bits < 0 ? bits ^ 0x7fffffff : bits;
  return key == key ? flipped : INT32_MIN;
}

inline float unordered(std::int32_t key) {
  const std::int32_t bits = key < 0 ? key ^ 0x7fffffff : key;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// `count` rounded up to whole vectors: how many keys `reached_by` reads and fills.
inline std::int64_t whole_vectors(std::int64_t count) { return (count + 15) / 16 * 16; }

// A number that at least `rank` of `count` keys reach and that is not above the rank-th largest:
// halving between the smallest and the largest until 2^9 steps of float32 are left, a relative
// 2^-14. 1 ≤ rank ≤ count. `keys` in the form of `ordered`, with room for whole vectors.
inline float reached_by(std::int32_t* keys, std::int64_t count, std::int64_t rank) {
  const std::int64_t whole = whole_vectors(count);
  // Fills with copies of the first key, which are counted off again.
  const std::int32_t first = keys[0];
  for (std::int64_t i = count; i < whole; ++i) keys[i] = first;
  const std::int32_t fill = static_cast<std::int32_t>(whole - count);
  std::int32_t lows[16];
  std::int32_t highs[16];
  for (int lane = 0; lane < 16; ++lane) lows[lane] = highs[lane] = keys[lane];
  for (std::int64_t i = 16; i < whole; i += 16) {
    for (int lane = 0; lane < 16; ++lane) {
      lows[lane] = keys[i + lane] < lows[lane] ? keys[i + lane] : lows[lane];
      highs[lane] = keys[i + lane] > highs[lane] ? keys[i + lane] : highs[lane];
    }
  }
  std::int32_t low = lows[0];
  std::int32_t high = highs[0];
  for (int lane = 1; lane < 16; ++lane) {
    low = lows[lane] < low ? lows[lane] : low;
    high = highs[lane] > high ? highs[lane] : high;
  }
  std::int64_t above = static_cast<std::int64_t>(high) + 1;  // fewer than `rank` keys reach it
  while (above - low > 1 << 9) {
    const std::int32_t middle = static_cast<std::int32_t>(low + (above - low) / 2);
    std::int32_t lanes[16] = {};
    for (std::int64_t i = 0; i < whole; i += 16) {
      for (int lane = 0; lane < 16; ++lane) lanes[lane] += keys[i + lane] >= middle ? 1 : 0;
    }
    std::int32_t reached = first >= middle ? -fill : 0;
    for (int lane = 0; lane < 16; ++lane) reached += lanes[lane];
    if (reached >= rank) {
      low = middle;
    } else {
      above = middle;
    }
  }
  // A float32 NaN pattern stands between no two numbers that are compared.
  const float found = unordered(low);
  return found == found ? found : -INFINITY;
}

}  // namespace
}  // namespace visavis
