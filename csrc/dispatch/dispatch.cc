#include "dispatch/dispatch.h"

#include <cstdlib>
#include <stdexcept>

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
    std::string choices;
    for (const KernelTable* t : usable_tables()) choices += std::string(choices.empty() ? "" : ", ") + t->name;
    throw std::runtime_error("NAGCORE_ISA is '" + std::string(wanted) + "'; this build on this processor has " + choices +
                             ". Unset it for the best one.");
  }();
  return chosen;
}

}  // namespace nag
