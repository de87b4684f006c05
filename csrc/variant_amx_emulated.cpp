// The amx variant with its tile unit in plain C++; it proves, where there is no unit, what it can.
#include "tiles_emulated.h"

#include "cpu.h"
#include "kernel.h"
#include "screen_tiles.h"

namespace visavis {

const Variant variant_amx_emulated = {
    "amx_emulated", lacks_avx512, true, screened_match<Tiles<TileUnit>>,
    verified_match<Tiles<TileUnit>>, screened_audience<Tiles<TileUnit>>, exhaustive_scores,
};

}  // namespace visavis
