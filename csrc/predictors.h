// Exact linear predictors of some pairs of one row, in the very operations of score.h.
#pragma once

#include <cstdint>

#include "kernel.h"
#include "workspace.h"

namespace visavis {
namespace {

inline void prefetch(const float* weights, std::int64_t padded_columns) {
  for (std::int64_t d = 0; d < padded_columns; d += 16) __builtin_prefetch(weights + d);
}

// z of `count` pairs of the row whose widened indicators are `x`. `capability_at(n)` is the n-th
// one's capability, `h_at(n, j)` its adjustment. Weights come from afar and in no order, so they are
// asked for ahead of time.
template <class Traits, class CapabilityAt, class AdjustmentAt>
inline void exact_predictors(const PanelView& panel, const double* x, std::int64_t count,
                             CapabilityAt capability_at, AdjustmentAt h_at, double* predictor) {
  // Four at a time, for a dot alone waits for its own additions; the last one fills up.
  constexpr std::int64_t together = 4;
  constexpr std::int64_t ahead = 8;
  const std::int64_t columns = panel.padded_columns;
  const auto weights_at = [&](std::int64_t n) {
    return panel.weights + capability_at(n) * columns;
  };
  for (std::int64_t n = 0; n < smaller(ahead, count); ++n) prefetch(weights_at(n), columns);
  for (std::int64_t n = 0; n < count; n += together) {
    const float* w[together];
    double sum[together];
    for (std::int64_t i = 0; i < together; ++i) {
      if (n + i + ahead < count) prefetch(weights_at(n + i + ahead), columns);
      w[i] = weights_at(smaller(n + i, count - 1));
    }
    Traits::dots(x, w, columns, sum);
    for (std::int64_t i = 0; i < smaller(together, count - n); ++i) {
      const std::int64_t j = capability_at(n + i);
      const float h = h_at(n + i, j);
      predictor[n + i] = (sum[i] + static_cast<double>(panel.bias[j])) + static_cast<double>(h);
    }
  }
}

}  // namespace
}  // namespace visavis
