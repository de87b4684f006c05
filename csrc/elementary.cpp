// exp and log1p of the law over arrays, for decay and history: libm's differ between processors.
#include "kernel.h"
#include "score.h"
#include "workspace.h"

namespace visavis {

void exp_nonpositive(const double* y, double* result, std::int64_t size) {
  const FloatingPointState state;
  for (std::int64_t i = 0; i < size; ++i) result[i] = exp_at(y[i]);
}

void log1p_nonnegative(const double* x, double* result, std::int64_t size) {
  const FloatingPointState state;
  for (std::int64_t i = 0; i < size; ++i) result[i] = log1p_at(x[i]);
}

}  // namespace visavis
