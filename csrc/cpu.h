// What this processor offers and the operating system lets us use; asked once.
#pragma once

namespace visavis {

// Null when every feature of the set is there, else the name of the first that is missing.
const char* lacks_avx2();
const char* lacks_avx512();
// Asks the operating system for the tile registers, once for the process and its children.
const char* lacks_amx();

// "avx2 fma avx512f …": what of interest this processor has, for people.
const char* processor_features();

}  // namespace visavis
