// The list of variants in this build. Choosing one is the caller's: once per call, by name or best.
#include "eligible.h"
#include "kernel.h"

namespace visavis {
namespace {

// Best last: a faster variant is added at the end, behind what its processor must support.
const Variant* const variants[] = {
#if defined(__x86_64__)
    &variant_amx_emulated,
#endif
    &variant_portable,
#if defined(__x86_64__)
    &variant_avx2,
    &variant_avx512,
    &variant_amx,
#endif
};

}  // namespace

std::int64_t variant_count() {
  return static_cast<std::int64_t>(sizeof variants / sizeof variants[0]);
}

const Variant* variant_at(std::int64_t index) { return variants[index]; }

void find_block_planes(const Problem& problem, std::int32_t* block_plane) {
  const ScreenView& screen = *problem.panel.screen;
  for (std::int64_t block = 0; block < screen.blocks; ++block) {
    block_plane[block] = block_plane_of(problem.eligibility, screen, block);
  }
}

Status validate_problem(const Problem& problem) { return validate(problem); }

}  // namespace visavis
