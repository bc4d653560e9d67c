#include "engine/update.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/threads.h"
#include "engine/update_walk.h"

namespace nag {
namespace {

// Below this many elements a second thread costs more to wake than it saves. It changes time only.
constexpr std::size_t kElementsPerThread = 16384;

// A list of small tensors is a walk over memory that no processor foresees: a tensor asks for the first lines of one that is
// so many places behind it. Larger ones are foreseen soon enough.
constexpr std::size_t kSmallTensor = 512, kTensorsAhead = 8;

// Elements of a piece of a long list. Threads take the next one when they have done theirs: a core that is kept from its work
// for a while, as those of shared machines are, then holds up nobody.
constexpr std::size_t kPiece = 64 * kUpdateLeaf;

constexpr std::size_t kScratchLeaf = kUpdateLeaf * sizeof(double);

std::size_t bytes_of(UpdateNumber number) {
  switch (number) {
    case UpdateNumber::f64:
      return 8;
    case UpdateNumber::f32:
      return 4;
    default:
      return 2;
  }
}

std::size_t leaves_of(std::size_t count) { return (count + kUpdateLeaf - 1) / kUpdateLeaf; }

void ask_for(const UpdateSpan& span) {
#if defined(__GNUC__)
  __builtin_prefetch(span.param, 1);
  __builtin_prefetch(span.grad);
  if (span.buffer != nullptr) __builtin_prefetch(span.buffer, 1);
#else
  (void)span;
#endif
}

// The rules of a call in both compute types, with the clip factor in force.
struct Rules {
  std::vector<UpdateRule<float>> narrow;
  std::vector<UpdateRule<double>> wide;

  explicit Rules(const std::vector<UpdateScalars>& scalars) : narrow(scalars.size()), wide(scalars.size()) {
    make(scalars, 1.0);
  }
  void make(const std::vector<UpdateScalars>& scalars, double clip) {
    for (std::size_t i = 0; i < scalars.size(); ++i) {
      narrow[i] = make_update_rule<float>(scalars[i], clip);
      wide[i] = make_update_rule<double>(scalars[i], clip);
    }
  }
};

class Team {
 public:
  Team(const UpdateTable& table, UpdateList& list, int threads) : table_(table), list_(list) {
    // Everything that can throw happens here: no exception may leave a parallel region.
    if (list.walks()) {
      scratch_.resize(static_cast<std::size_t>(threads) * kUpdateRoles * kScratchLeaf);
    }
  }

  void norms(int thread, int threads) {
    for_each_run(read_, thread, threads, [&](const UpdateTensor& t, std::size_t begin, std::size_t end, double* sums) {
      const UpdateSpan& s = t.whole;
      const std::size_t bytes = bytes_of(s.grad_number);
      const UpdateWalk* walk = list_.walk(t);
      for (std::size_t leaf = begin; leaf < end; ++leaf) {
        const std::size_t start = leaf * kUpdateLeaf, count = std::min(kUpdateLeaf, s.count - start);
        const auto* grad = static_cast<const char*>(s.grad);
        if (walk == nullptr) {
          grad += start * bytes;
        } else {
          gather(bytes, slot(thread, kGrad), grad, walk->shape, walk->strides[kGrad], start, count);
          grad = slot(thread, kGrad);
        }
        sums[leaf - begin] = table_.sum_squares(grad, s.grad_number, count);
      }
    });
  }

  void steps(int thread, int threads, const Rules& rules) {
    const bool aligned = !list_.alignments().empty();
    for_each_run(stepped_, thread, threads, [&](const UpdateTensor& t, std::size_t begin, std::size_t end, double* sums) {
      double* const alignments = aligned ? list_.alignments().data() + (sums - list_.sums().data()) : nullptr;
      const UpdateLeaves leaves{begin, end, sums, alignments, table_.asks};
      const UpdateWalk* walk = list_.walk(t);
      walk == nullptr ? step(t.whole, rules, leaves) : walked_steps(thread, t.whole, *walk, rules, leaves);
    });
  }

 private:
  using Taken = std::atomic<std::size_t>;  // pieces

  // A short list is one piece a thread, and its own. They are cut where their part of the elements ends, rounded down to a
  // leaf, so that a thousand small tensors and one large one balance alike.
  // Visits runs of leaves of one tensor: (tensor, first leaf, end, the first leaf's place in the list's sums).
  template <class Visit>
  void for_each_run(Taken& taken, int thread, int threads, Visit visit) {
    if (list_.elements() == 0) return;
    const auto shares = static_cast<std::size_t>(threads);
    const std::size_t pieces = list_.elements() / kPiece;
    if (shares == 1 || pieces <= shares) return for_each_run(static_cast<std::size_t>(thread), shares, visit);
    for (std::size_t piece; (piece = taken.fetch_add(1, std::memory_order_relaxed)) < pieces;)
      for_each_run(piece, pieces, visit);
  }

  std::size_t piece_begin(std::size_t piece, std::size_t pieces) const {
    const std::size_t elements = list_.elements();
    return elements / pieces * piece + std::min(piece, elements % pieces);
  }

  template <class Visit>
  void for_each_run(std::size_t piece, std::size_t pieces, Visit& visit) {
    const auto [tensor, leaf] = find(piece_begin(piece, pieces));
    const auto [last_tensor, last_leaf] = find(piece_begin(piece + 1, pieces));
    std::size_t from = leaf;
    for (std::size_t i = tensor; i <= last_tensor && i < list_.size(); ++i, from = 0) {
      const UpdateTensor& t = list_.tensor(i);
      if (t.whole.count <= kSmallTensor && i + kTensorsAhead <= last_tensor && i + kTensorsAhead < list_.size()) {
        ask_for(list_.tensor(i + kTensorsAhead).whole);
      }
      const std::size_t end = i == last_tensor ? last_leaf : leaves_of(t.whole.count);
      if (from < end) visit(t, from, end, list_.sums().data() + list_.first_leaf(i) + from);
    }
  }

  struct Position {
    std::size_t tensor;
    std::size_t leaf;
  };

  Position find(std::size_t element) const {
    if (element >= list_.elements()) return {list_.size(), 0};
    std::size_t low = 0;
    std::size_t high = list_.size();
    while (high - low > 1) {
      const std::size_t middle = low + (high - low) / 2;
      (list_.first_element(middle) <= element ? low : high) = middle;
    }
    return {low, (element - list_.first_element(low)) / kUpdateLeaf};
  }

  void step(const UpdateSpan& span, const Rules& rules, const UpdateLeaves& leaves) const {
    span.param_number == UpdateNumber::f64 ? table_.step_f64(span, rules.wide[span.rule], leaves)
                                           : table_.step_f32(span, rules.narrow[span.rule], leaves);
  }

  char* slot(int thread, int role) {
    return scratch_.data() +
           (static_cast<std::size_t>(thread) * kUpdateRoles + static_cast<std::size_t>(role)) *
               kScratchLeaf;
  }

  // Leaf by leaf through the thread's own copies.
  void walked_steps(int thread, const UpdateSpan& whole, const UpdateWalk& walk, const Rules& rules, const UpdateLeaves& leaves) {
    const std::size_t state = whole.param_number == UpdateNumber::f64 ? 8 : 4;
    const std::size_t bytes[kUpdateRoles] = {bytes_of(whole.param_number), bytes_of(whole.grad_number),
                                             whole.bf16_buffer ? 2 : state, state, 4};
    void* const base[kUpdateRoles] = {whole.param, const_cast<void*>(whole.grad), whole.buffer, whole.ema, whole.master};
    UpdateSpan copy = whole;
    copy.param = slot(thread, kParam);
    copy.grad = slot(thread, kGrad);
    if (copy.buffer != nullptr) copy.buffer = slot(thread, kBuffer);
    if (copy.ema != nullptr) copy.ema = slot(thread, kEma);
    if (copy.master != nullptr) copy.master = reinterpret_cast<float*>(slot(thread, kMaster));
    for (std::size_t leaf = leaves.begin; leaf < leaves.end; ++leaf) {
      const std::size_t start = leaf * kUpdateLeaf, i = leaf - leaves.begin;
      copy.count = std::min(kUpdateLeaf, whole.count - start);
      copy.leaf = whole.leaf + leaf;
      for (int role = 0; role < kUpdateRoles; ++role) {
        if (base[role] == nullptr) continue;
        gather(bytes[role], slot(thread, role), static_cast<const char*>(base[role]), walk.shape, walk.strides[role], start,
               copy.count);
      }
      double* const alignment = leaves.alignments == nullptr ? nullptr : leaves.alignments + i;
      step(copy, rules, {0, 1, leaves.squares + i, alignment, false});
      for (int role = 0; role < kUpdateRoles; ++role) {
        if (base[role] == nullptr || role == kGrad) continue;
        scatter(bytes[role], slot(thread, role), static_cast<char*>(base[role]), walk.shape, walk.strides[role], start,
                copy.count);
      }
    }
  }

  const UpdateTable& table_;
  UpdateList& list_;
  std::vector<char> scratch_;
  Taken read_{0}, stepped_{0};
};

// A fixed binary tree over the leaves.
double tree_sum(const double* sums, std::size_t count) {
  if (count == 0) return 0.0;
  if (count <= 8) {
    double total = sums[0];
    for (std::size_t i = 1; i < count; ++i) total += sums[i];
    return total;
  }
  std::size_t half = 8;
  while (half * 2 < count) half *= 2;
  return tree_sum(sums, half) + tree_sum(sums + half, count - half);
}

// Σ g² of a double tensor can overflow or vanish though every g is finite. Then the double gradients
// are read once more, scaled by their largest magnitude. Rare, so it is one plain serial loop.
struct ScaledSquares {
  double largest = 0.0;
  double sum = 0.0;  // Σ (g / largest)²
  bool finite = true;
};

template <class Visit>
void for_each_double_gradient(const UpdateList& list, Visit visit) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    const UpdateTensor& t = list.tensor(i);
    if (t.whole.grad_number != UpdateNumber::f64) continue;
    const char* base = static_cast<const char*>(t.whole.grad);
    const auto run = [&](std::int64_t offset, std::size_t count, std::int64_t step) {
      for (std::size_t k = 0; k < count; ++k) {
        double g;
        std::memcpy(&g, base + offset + static_cast<std::int64_t>(k) * step, sizeof g);
        visit(g);
      }
    };
    const UpdateWalk* walk = list.walk(t);
    if (walk == nullptr) {
      run(0, t.whole.count, 8);
    } else {
      for_each_run(walk->shape, walk->strides[kGrad], 0, t.whole.count, run);
    }
  }
}

ScaledSquares scaled_squares(const UpdateList& list) {
  ScaledSquares out;
  for_each_double_gradient(list, [&](double g) {
    out.finite = out.finite && std::isfinite(g);
    out.largest = std::max(out.largest, std::fabs(g));
  });
  if (!out.finite || out.largest == 0.0) return out;
  for_each_double_gradient(list, [&](double g) {
    const double q = g / out.largest;
    out.sum += q * q;
  });
  return out;
}

struct Norm {
  double value = 0.0;
  bool finite = true;
};

Norm gradient_norm(UpdateList& list) {
  const std::vector<double>& sums = list.sums();
  const double total = tree_sum(sums.data(), sums.size());
  constexpr double kSmall = 1e-280;  // squares below it have begun to lose digits
  if (!list.any_double() || (std::isfinite(total) && total > kSmall)) {
    return {std::sqrt(total), std::isfinite(total)};
  }
  double rest = 0.0;  // of the narrower gradients: their squares cannot overflow a double
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list.tensor(i).whole.grad_number == UpdateNumber::f64) continue;
    const std::size_t first = list.first_leaf(i);
    rest += tree_sum(sums.data() + first, list.first_leaf(i + 1) - first);
  }
  const ScaledSquares wide = scaled_squares(list);
  const bool finite = wide.finite && std::isfinite(rest);
  if (!finite) return {std::sqrt(total), false};
  return {std::hypot(std::sqrt(rest), wide.largest * std::sqrt(wide.sum)), true};
}

// torch's clip_grad_norm_ in either convention: keras lacks the 1e-6, which float32 hardly sees.
double clip_factor(const UpdateScalars& s, double norm) {
  return s.max_norm == 0.0 ? 1.0 : std::min(1.0, s.max_norm / (norm + 1e-6));
}

}  // namespace

void UpdateList::add(const UpdateSpan& whole) {
  tensors_.push_back({whole, -1});
  (whole.param_number == UpdateNumber::f64 ? any_double_ : any_single_) = true;
}

void UpdateList::add(const UpdateSpan& whole, UpdateWalk walk) {
  add(whole);
  tensors_.back().walk = static_cast<std::int64_t>(walks_.size());
  walks_.push_back(std::move(walk));
}

void UpdateList::clear() {
  tensors_.clear();
  walks_.clear();
  any_double_ = any_single_ = false;
}

void UpdateList::seal() {
  first_leaf_.assign(1, 0);
  first_element_.assign(1, 0);
  first_leaf_.reserve(tensors_.size() + 1);
  first_element_.reserve(tensors_.size() + 1);
  for (const UpdateTensor& t : tensors_) {
    first_leaf_.push_back(first_leaf_.back() + leaves_of(t.whole.count));
    first_element_.push_back(first_element_.back() + t.whole.count);
  }
  elements_ = first_element_.back();
  sums_.assign(leaves(), 0.0);
}

template <class T>
UpdateRule<T> make_update_rule(const UpdateScalars& s, double clip) {
  // Each scalar is rounded to the compute type once, after the arithmetic that torch or keras does
  // on it in Python's double; keras' 1 - kappa alone is taken in the variable's type.
  UpdateRule<T> r{};
  r.lr = static_cast<T>(s.lr);
  r.momentum = static_cast<T>(s.momentum);
  r.lookahead = static_cast<T>(s.lookahead);
  r.gain = static_cast<T>(1.0 - s.dampening);
  r.decay = static_cast<T>(s.weight_decay);
  r.keep = static_cast<T>(1.0 - s.lr * s.weight_decay);
  if (s.convention == UpdateConvention::keras_torch) {
    // keras makes this factor from its float32 learning rate, for float64 variables too.
    const float part = static_cast<float>(s.weight_decay) * static_cast<float>(s.lr);
    r.keep = static_cast<T>(1.0F - part);
  }
  r.ema_keep = static_cast<T>(s.ema_decay);
  r.ema_mix = s.convention == UpdateConvention::torch ? static_cast<T>(1.0 - s.ema_decay)
                                                      : T(1) - r.ema_keep;
  r.unscale = static_cast<T>(s.grad_scale);
  r.clip = static_cast<T>(s.maximize ? -clip : clip);
  r.seed = s.seed;
  r.convention = s.convention;
  r.form = !s.buffered   ? UpdateForm::plain
           : s.nesterov ? UpdateForm::nesterov
                        : UpdateForm::heavy_ball;
  r.decay_kind = s.weight_decay == 0.0 ? UpdateDecay::none
                 : s.decoupled         ? UpdateDecay::decoupled
                                       : UpdateDecay::coupled;
  r.scaled = r.unscale != T(1);
  r.clipped = r.clip != T(1);
  r.averaged = s.averaged;
  return r;
}

template UpdateRule<float> make_update_rule<float>(const UpdateScalars&, double);
template UpdateRule<double> make_update_rule<double>(const UpdateScalars&, double);

namespace {

int useful_threads(const UpdateList& list, int threads) {
  const std::size_t useful = 1 + list.elements() / kElementsPerThread;
  return static_cast<std::size_t>(threads) > useful ? static_cast<int>(useful) : threads;
}

double alignment_of(UpdateList& list, const std::vector<UpdateScalars>& rules) {
  const double* sums = list.alignments().data();
  double total = 0.0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::size_t first = list.first_leaf(i);
    total += rules[list.tensor(i).whole.rule].lr * tree_sum(sums + first, list.first_leaf(i + 1) - first);
  }
  return total;
}

}  // namespace

UpdateReport run_update(const UpdateTable& table, UpdateList& list,
                        const std::vector<UpdateScalars>& rules, int threads) {
  const UpdateScalars& shared = rules[0];
  threads = useful_threads(list, threads);
  list.alignments().assign(shared.aligned ? list.leaves() : 0, 0.0);
  Team team(table, list, threads);
  UpdateReport report;
  Rules rounded(rules);

  const auto judge = [&](Norm norm) {
    report.grad_norm = norm.value;
    report.found_inf = !norm.finite;
    report.written = norm.finite;
    report.clip_factor = norm.finite ? clip_factor(shared, report.grad_norm) : 1.0;
    rounded.make(rules, report.clip_factor);
  };
  const auto scaled = [&](Norm norm) { return Norm{norm.value / shared.grad_scale, norm.finite}; };
  const bool known = !(shared.known_norm < 0.0);
  if (known) judge({shared.known_norm, std::isfinite(shared.known_norm)});
  const bool reads = shared.read_first && !known;

  // One region for everything: the norm, the decision, the update.
  parallel_run(threads, [&](int thread, int count) {
    if (reads) {
      team.norms(thread, count);
      if (count > 1) parallel_barrier();
      if (thread == 0) judge(scaled(gradient_norm(list)));
      if (count > 1) parallel_barrier();
    }
    if (report.written) team.steps(thread, count, rounded);
  });

  if (!reads && !known) {
    const Norm norm = scaled(gradient_norm(list));
    report.grad_norm = norm.value;
    report.found_inf = !norm.finite;
  }
  if (shared.aligned && report.written) report.alignment = alignment_of(list, rules);
  return report;
}

double update_norm(const UpdateTable& table, UpdateList& list, int threads) {
  threads = useful_threads(list, threads);
  Team team(table, list, threads);
  parallel_run(threads, [&](int thread, int count) { team.norms(thread, count); });
  const Norm norm = gradient_norm(list);
  return norm.finite ? norm.value : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace nag
