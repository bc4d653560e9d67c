#include "dispatch/dispatch.h"

#include <cstdlib>
#include <limits>
#include <stdexcept>

#if defined(NAG_HAVE_V4)
#include <cpuid.h>
#endif
#if defined(NAG_HAVE_AMX) && defined(__linux__)
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
#if defined(NAG_HAVE_VNNI)
namespace vnni { extern void (*const pipe_bytes)(const PipeBlock<float>&); }
#endif

namespace {

#if defined(NAG_HAVE_AMX) || defined(NAG_HAVE_BF16)

bool cpuid(unsigned leaf, unsigned (&r)[4]) { return __get_cpuid_count(7, leaf, &r[0], &r[1], &r[2], &r[3]) != 0; }

bool multiplies_pairs() {
  unsigned r[4] = {};
  return cpuid(1, r) && (r[0] >> 5 & 1) && find_table("v4") != nullptr;  // AVX512-BF16
}

bool always() { return true; }
#endif

#if defined(NAG_HAVE_AMX) && defined(__linux__)
bool has_amx() {
  unsigned r[4] = {};
  return cpuid(0, r) && (r[3] >> 22 & 1) && (r[3] >> 24 & 1) && multiplies_pairs();  // AMX-BF16, AMX-TILE
}

// Linux saves tiles with a thread once the process has asked for that.
bool granted() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}
#endif

// A set of kernels for rounded rows: the first table and these are in force where NAGCORE_ISA is `name`.
struct TileSet {
  const char* name;
  bool (*there)();      // in this processor
  bool (*usable)();     // by this process
  bool (*pays)();       // beside that table alone
  const TileKernels* kernels;
};

}  // namespace
#if defined(NAG_HAVE_AMX) && defined(__linux__)
namespace amx { extern const TileKernels kernels; }
#endif
#if defined(NAG_HAVE_BF16)
namespace dots { extern const TileKernels kernels; }
#endif
namespace {

// Best first; the last has no name.
const TileSet kTileSets[] = {
#if defined(NAG_HAVE_AMX) && defined(__linux__)
    {"amx", &has_amx, &granted, &always, &amx::kernels},
#endif
#if defined(NAG_HAVE_BF16)
    // Intel's multiply float32 as fast.
    {"bf16", &multiplies_pairs, &always, [] { return __builtin_cpu_is("amd") != 0; }, &dots::kernels},
#endif
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

}  // namespace

#if defined(NAG_HAVE_V4) && defined(NAG_HAVE_V3)
namespace {

// Zen 4 reads 64 bytes in two halves, and those that lie in two cache lines, as rows of any length do, in twice the time: passes
// over rows take a tenth to a third less time in v3's vectors. All else is v4's.
bool is_zen4() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_is("amd") && __get_cpuid(1, &a, &b, &c, &d) && (a >> 8 & 15) + (a >> 20 & 255) == 0x19;  // and Zen 3, without v4
}

template <class T>
void take_passes(RowKernels<T>& to, const RowKernels<T>& from, Storage own) {
  to.row_dot[static_cast<int>(own)] = from.row_dot[static_cast<int>(own)];
  to.row_outer[static_cast<int>(own)] = from.row_outer[static_cast<int>(own)];
  to.row_lanes = from.row_lanes;
  to.pipe[static_cast<int>(own)] = from.pipe[static_cast<int>(own)];
}

template <class T>
void load_by_number(RowKernels<T>& k) {
  for (int storage = 0; storage < 2; ++storage)
    for (int wide_index = 0; wide_index < 2; ++wide_index) k.csr_dot_near[storage][wide_index] = k.csr_dot_by_number[storage][wide_index];
}

const KernelTable& zen4_table() {
  static const KernelTable table = [] {
    KernelTable t = v4::table;
    t.name = "zen4";
    take_passes(t.f32, v3::table.f32, Storage::f32);
    take_passes(t.f64, v3::table.f64, Storage::f64);
#if defined(NAG_HAVE_VNNI)
    if (__builtin_cpu_supports("avx512vnni")) {
      t.f32.pipe[static_cast<int>(Storage::u8)] = vnni::pipe_bytes;
      t.f32.fixed_bytes = true;
    }
#endif
    // A gather takes longer than its loads where these are short.
    load_by_number(t.f32);
    load_by_number(t.f64);
    // Two streams of rows a thread, asked for far ahead, are read faster than four while rows are short, and longer ones where
    // either cache is asked for them; long narrow rows have time for eight. Copies stay in the third-level cache: 12 MiB of it and a little.
    LongRows& rows = t.long_rows;
    rows.few_pages = 13 * 1024;
    rows.few_block = 64 * 1024;
    rows.few = {2, 1024, 16384};
    rows.longer = rows.beside_copies = {4, 1536, 4096};
    rows.narrow_few.near = 768;
    rows.narrow = {8, 512, 2048};
    rows.wide = 112 * 1024;
    rows.four_rows = 2048 * 1024;
    rows.two_rows = std::numeric_limits<std::int64_t>::max();
    rows.copied = (12 * 1024 + 512) * 1024;
    rows.copied_by_all = true;
    rows.copies_narrow = false;
    // Its own streams go on from page to page, and lines asked for besides only take their turns.
    t.update.asks = false;
    return t;
  }();
  return table;
}

}  // namespace
#endif

const std::vector<const KernelTable*>& usable_tables() {
  static const std::vector<const KernelTable*> tables = [] {
    std::vector<const KernelTable*> t;
#if defined(NAG_HAVE_V4)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd")) {
#if defined(NAG_HAVE_V3)
      if (is_zen4()) t.push_back(&zen4_table());
#endif
      t.push_back(&v4::table);
    }
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
    std::string choices;
    const auto choice = [&](const char* name) { choices += std::string(choices.empty() ? "" : ", ") + name; };
    for (const TileSet* set = kTileSets; set->name != nullptr; ++set) {
      if (!set->there()) continue;
      if (wanted == std::string(set->name)) return *usable_tables().front();
      choice(set->name);
    }
    for (const KernelTable* t : usable_tables()) choice(t->name);
    throw std::runtime_error("NAGCORE_ISA is '" + std::string(wanted) + "'; this build on this processor has " + choices +
                             ". Unset it for the best one.");
  }();
  return chosen;
}

const TileKernels* active_tiles() {
  static const TileKernels* const tiles = []() -> const TileKernels* {
    const char* wanted = std::getenv("NAGCORE_ISA");
    const bool unbound = wanted == nullptr || *wanted == '\0';
    for (const TileSet* set = kTileSets; set->name != nullptr; ++set)
      if (unbound ? set->there() && set->pays() && set->usable() : wanted == std::string(set->name))
        return set->there() && set->usable() ? set->kernels : nullptr;
    return nullptr;
  }();
  return tiles;
}

}  // namespace nag
