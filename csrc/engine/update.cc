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

char* at(void* base, std::size_t element, std::size_t bytes) {
  return base == nullptr ? nullptr : static_cast<char*>(base) + element * bytes;
}

void ask_for(const UpdateSpan& span) {
#if defined(__GNUC__)
  __builtin_prefetch(span.param, 1);
  __builtin_prefetch(span.grad);
  if (span.buffer != nullptr) __builtin_prefetch(span.buffer, 1);
#else
  (void)span;
#endif
}

// The leaf that starts at element `start` of a dense tensor.
UpdateSpan dense_leaf(const UpdateTensor& t, std::size_t start, bool asks) {
  UpdateSpan span = t.whole;
  const std::size_t state = span.param_number == UpdateNumber::f64 ? 8 : 4;
  span.param = at(span.param, start, bytes_of(span.param_number));
  span.grad = static_cast<const char*>(span.grad) + start * bytes_of(span.grad_number);
  span.buffer = at(span.buffer, start, span.bf16_buffer ? 2 : state);
  span.ema = at(span.ema, start, state);
  span.master = reinterpret_cast<float*>(at(span.master, start, 4));
  span.count = std::min(kUpdateLeaf, t.whole.count - start);
  // Where random bits are made between the loads, every processor gains.
  span.asked = asks || span.bf16_buffer ? t.whole.count - start : 0;
  span.leaf = start / kUpdateLeaf;
  return span;
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
    for_each_leaf(read_, thread, threads, [&](const UpdateTensor& t, std::size_t start, std::size_t number) {
      double& sum = list_.sums()[number];
      const UpdateWalk* walk = list_.walk(t);
      if (walk == nullptr) {
        const UpdateSpan leaf = dense_leaf(t, start, false);
        sum = table_.sum_squares(leaf.grad, leaf.grad_number, leaf.count);
        return;
      }
      const std::size_t count = std::min(kUpdateLeaf, t.whole.count - start);
      char* grad = slot(thread, kGrad);
      gather(bytes_of(t.whole.grad_number), grad, static_cast<const char*>(t.whole.grad),
             walk->shape, walk->strides[kGrad], start, count);
      sum = table_.sum_squares(grad, t.whole.grad_number, count);
    });
  }

  void steps(int thread, int threads, const Rules& rules) {
    double* alignments = list_.alignments().empty() ? nullptr : list_.alignments().data();
    for_each_leaf(stepped_, thread, threads, [&](const UpdateTensor& t, std::size_t start, std::size_t number) {
      const UpdateWalk* walk = list_.walk(t);
      UpdateSpan leaf = dense_leaf(t, start, table_.asks);
      leaf.alignment = alignments == nullptr ? nullptr : alignments + number;
      list_.sums()[number] = walk == nullptr ? step(leaf, rules) : walked_step(thread, t, leaf, *walk, start, rules);
    });
  }

 private:
  using Taken = std::atomic<std::size_t>;  // pieces

  // A short list is one piece a thread, and its own. They are cut where their part of the elements ends, rounded down to a
  // leaf, so that a thousand small tensors and one large one balance alike.
  template <class Visit>
  void for_each_leaf(Taken& taken, int thread, int threads, Visit visit) {
    if (list_.elements() == 0) return;
    const auto shares = static_cast<std::size_t>(threads);
    const std::size_t pieces = list_.elements() / kPiece;
    if (shares == 1 || pieces <= shares) return for_each_leaf(static_cast<std::size_t>(thread), shares, visit);
    for (std::size_t piece; (piece = taken.fetch_add(1, std::memory_order_relaxed)) < pieces;)
      for_each_leaf(piece, pieces, visit);
  }

  std::size_t piece_begin(std::size_t piece, std::size_t pieces) const {
    const std::size_t elements = list_.elements();
    return elements / pieces * piece + std::min(piece, elements % pieces);
  }

  template <class Visit>
  void for_each_leaf(std::size_t piece, std::size_t pieces, Visit& visit) {
    const auto [tensor, leaf] = find(piece_begin(piece, pieces));
    const auto [last_tensor, last_leaf] = find(piece_begin(piece + 1, pieces));
    std::size_t from = leaf;
    for (std::size_t i = tensor; i <= last_tensor && i < list_.size(); ++i, from = 0) {
      const UpdateTensor& t = list_.tensor(i);
      if (t.whole.count <= kSmallTensor && i + kTensorsAhead <= last_tensor && i + kTensorsAhead < list_.size()) {
        ask_for(list_.tensor(i + kTensorsAhead).whole);
      }
      const std::size_t end = i == last_tensor ? last_leaf : leaves_of(t.whole.count);
      const std::size_t base = list_.first_leaf(i);
      for (std::size_t l = from; l < end; ++l) visit(t, l * kUpdateLeaf, base + l);
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

  double step(const UpdateSpan& span, const Rules& rules) const {
    return span.param_number == UpdateNumber::f64 ? table_.step_f64(span, rules.wide[span.rule])
                                                  : table_.step_f32(span, rules.narrow[span.rule]);
  }

  char* slot(int thread, int role) {
    return scratch_.data() +
           (static_cast<std::size_t>(thread) * kUpdateRoles + static_cast<std::size_t>(role)) *
               kScratchLeaf;
  }

  // `leaf` as dense_leaf gives it; its pointers are not where a walked tensor's elements lie.
  double walked_step(int thread, const UpdateTensor& t, UpdateSpan leaf, const UpdateWalk& walk, std::size_t start,
                     const Rules& rules) {
    const UpdateSpan& whole = t.whole;
    const std::size_t state = leaf.param_number == UpdateNumber::f64 ? 8 : 4;
    const std::size_t bytes[kUpdateRoles] = {bytes_of(leaf.param_number), bytes_of(leaf.grad_number),
                                             leaf.bf16_buffer ? 2 : state, state, 4};
    const void* base[kUpdateRoles] = {whole.param, whole.grad, whole.buffer, whole.ema, whole.master};
    for (int role = 0; role < kUpdateRoles; ++role) {
      if (base[role] == nullptr) continue;
      gather(bytes[role], slot(thread, role), static_cast<const char*>(base[role]), walk.shape,
             walk.strides[role], start, leaf.count);
    }
    leaf.asked = 0;
    leaf.param = slot(thread, kParam);
    leaf.grad = slot(thread, kGrad);
    if (leaf.buffer != nullptr) leaf.buffer = slot(thread, kBuffer);
    if (leaf.ema != nullptr) leaf.ema = slot(thread, kEma);
    if (leaf.master != nullptr) leaf.master = reinterpret_cast<float*>(slot(thread, kMaster));
    const double sum = step(leaf, rules);
    for (int role = 0; role < kUpdateRoles; ++role) {
      if (base[role] == nullptr || role == kGrad) continue;
      scatter(bytes[role], slot(thread, role), static_cast<char*>(const_cast<void*>(base[role])),
              walk.shape, walk.strides[role], start, leaf.count);
    }
    return sum;
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
