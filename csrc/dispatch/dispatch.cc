#include "dispatch/dispatch.h"

#include <cstdlib>
#include <stdexcept>

#if defined(NAG_HAVE_AMX) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nag {

#define NAG_DECLARE(isa) namespace isa { extern const KernelTable table; }
#if defined(NAG_HAVE_V4)
NAG_DECLARE(v4)
#endif
#if defined(NAG_HAVE_V3)
NAG_DECLARE(v3)
#endif
NAG_DECLARE(NAG_BASELINE)
#undef NAG_DECLARE

namespace {

constexpr char kWithTiles[] = "amx";

#if defined(NAG_HAVE_AMX) && defined(__linux__)
}  // namespace
namespace amx { extern const TileKernels kernels; }
namespace {

bool has_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return false;  // AMX-BF16, AMX-TILE
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1) && usable_tables().front()->name == std::string("v4");  // AVX512-BF16
}

// Linux saves tiles with a thread once the process has asked for that.
bool tiles_granted() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

const TileKernels* found_tiles() { return has_tiles() && tiles_granted() ? &amx::kernels : nullptr; }
#else
bool has_tiles() { return false; }
const TileKernels* found_tiles() { return nullptr; }
#endif

}  // namespace

const std::vector<const KernelTable*>& usable_tables() {
  static const std::vector<const KernelTable*> tables = [] {
    std::vector<const KernelTable*> t;
#if defined(NAG_HAVE_V4)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
      t.push_back(&v4::table);
#endif
#if defined(NAG_HAVE_V3)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
      t.push_back(&v3::table);
#endif
    t.push_back(&NAG_BASELINE::table);
    return t;
  }();
  return tables;
}

const KernelTable* find_table(const std::string& name) {
  for (const KernelTable* t : usable_tables())
    if (name == t->name) return t;
  return nullptr;
}

const KernelTable& active_table() {
  static const KernelTable& chosen = []() -> const KernelTable& {
    const char* wanted = std::getenv("NAGCORE_ISA");
    if (wanted == nullptr || *wanted == '\0') return *usable_tables().front();
    if (const KernelTable* t = find_table(wanted)) return *t;
    if (wanted == std::string(kWithTiles) && has_tiles()) return *usable_tables().front();
    std::string choices = has_tiles() ? kWithTiles : "";
    for (const KernelTable* t : usable_tables()) choices += std::string(choices.empty() ? "" : ", ") + t->name;
    throw std::runtime_error("NAGCORE_ISA is '" + std::string(wanted) + "'; this build on this processor has " + choices +
                             ". Unset it for the best one.");
  }();
  return chosen;
}

const TileKernels* active_tiles() {
  static const TileKernels* const tiles = [] {
    const char* wanted = std::getenv("NAGCORE_ISA");
    const bool unbound = wanted == nullptr || *wanted == '\0' || wanted == std::string(kWithTiles);
    return unbound ? found_tiles() : nullptr;
  }();
  return tiles;
}

}  // namespace nag
