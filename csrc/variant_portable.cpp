// The variant for every processor: plain C++, the definition over all pairs.
#include "exhaustive_inl.h"
#include "kernel.h"

namespace visavis {
namespace {

bool supported() { return true; }

}  // namespace

const Variant variant_portable = {
    "portable", supported, exhaustive_match, exhaustive_audience, exhaustive_scores,
};

}  // namespace visavis
