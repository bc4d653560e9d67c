// What this build and this processor can run, best first, and the one in force.
#pragma once
#include <string>
#include <vector>

#include "kernels/table.h"

namespace nag {

// Ordered best first; never empty.
const std::vector<const KernelTable*>& usable_tables();
// The table named, or null when this build or processor has none of that name.
const KernelTable* find_table(const std::string& name);
// The first of usable_tables(), or the one NAGCORE_ISA names. Throws std::runtime_error naming the choices.
const KernelTable& active_table();
// Kernels for rounded rows beside the table in force, or null: this processor, its system and this build must have them, and
// NAGCORE_ISA must be unset (the best that pay) or their name (the first table and these). The system is asked for matrix tiles at the first call.
const TileKernels* active_tiles();

}  // namespace nag
