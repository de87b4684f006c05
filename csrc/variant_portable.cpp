// The variant for every processor: plain C++, the definition over all pairs.
#include "exhaustive_inl.h"
#include "kernel.h"
#include "verify.h"

namespace visavis {
namespace {

const char* lacks() { return nullptr; }

struct Portable {
  static void dots(const double* x, const float* const w[4], std::int64_t padded_columns,
                   double sum[4]) {
    for (int i = 0; i < 4; ++i) sum[i] = dot(x, w[i], padded_columns);
  }
};

}  // namespace

const Variant variant_portable = {
    "portable", lacks, false, exhaustive_match, verified_match<Portable>, exhaustive_audience,
    exhaustive_scores,
};

}  // namespace visavis
