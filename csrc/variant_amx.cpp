// AMX: the processor's tile unit multiplies 16 × 64 by 64 × 16 bytes an instruction.
#include "tiles_amx.h"

#include "cpu.h"
#include "kernel.h"
#include "screen_tiles.h"

namespace visavis {

const Variant variant_amx = {
    "amx", lacks_amx, true, screened_match<Tiles<TileUnit>>, verified_match<Tiles<TileUnit>>,
    screened_audience<Tiles<TileUnit>>, exhaustive_scores,
};

}  // namespace visavis
