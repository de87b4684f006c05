/* Edge counters for code compiled with -fsanitize-coverage=trace-pc, which GCC has, in the form that
 * libFuzzer reads: one saturating byte for each hash of a program counter, and a table that names
 * them. fuzz_match.py registers both. */
#include <stdint.h>

enum { counter_count = 1 << 16 };

struct place {
  uintptr_t pc;
  uintptr_t flags;
};

uint8_t visavis_counters[counter_count];
struct place visavis_places[counter_count];

void __sanitizer_cov_trace_pc(void) {
  const uintptr_t pc = (uintptr_t)__builtin_return_address(0);
  uint8_t* const counter = &visavis_counters[(pc ^ (pc >> 16)) % counter_count];
  if (*counter != UINT8_MAX) ++*counter;
}
