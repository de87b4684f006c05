// The variant for every processor: plain C++, the definition over all pairs.
#include "exhaustive_inl.h"
#include "kernel.h"

namespace visavis {
namespace {

const char* lacks() { return nullptr; }

}  // namespace

const Variant variant_portable = {
    "portable", lacks, false, exhaustive_match, exhaustive_audience, exhaustive_scores,
};

}  // namespace visavis
