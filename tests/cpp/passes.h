// Whole problems for the engine's tests: X in any storage and layout, and the same objective in long double.
#pragma once
#include <cstring>

#include "engine/problem.h"
#include "support.h"

namespace nag_test {

struct Shape {
  std::int64_t n, d, k;
};

enum class Order { c, f, gap, reversed, odd_byte, f_odd_byte };
constexpr Order kOrders[] = {Order::c, Order::f, Order::gap, Order::reversed, Order::odd_byte, Order::f_odd_byte};

// Owns everything that a ProblemView points at. Vectors stand in the compute type, X as stored and as long double.
class Data {
 public:
  Data(const KernelTable* table, int loss, Shape shape, nag::Storage storage, nag::Compute compute, Order order, bool extras)
      : shape_(shape), wide_(static_cast<std::size_t>(shape.n * shape.d)) {
    Random random(static_cast<std::uint64_t>(shape.n * 131 + shape.d * 17 + shape.k + loss));
    view.table = &ran(table);
    view.loss = loss;
    view.storage = storage;
    view.compute = compute;
    view.n = shape.n;
    view.d = shape.d;
    view.k = shape.k;
    view.delta = 0.75;
    if (storage == nag::Storage::u8) {
      view.scale = 1.0 / 128;
      view.shift = -1.0;
    }
    lay_out(order);
    for (std::int64_t i = 0; i < shape.n; ++i)
      for (std::int64_t j = 0; j < shape.d; ++j) store(i, j, random);
    const nag::Domain domain = nag::kLosses[loss].targets;
    for (std::int64_t i = 0; i < shape.n; ++i) {
      y.push_back(domain == nag::Domain::classes       ? static_cast<double>(random.below(shape.k))
                  : domain == nag::Domain::binary      ? (random.bits() & 1 ? 1.0 : -1.0)
                  : domain == nag::Domain::nonnegative ? static_cast<double>(random.below(5))
                                                       : random.uniform(-2, 2));
      s.push_back(extras ? static_cast<double>(1 + random.below(8)) / 4 : 1.0);
      view.weight_sum += s.back();
      for (std::int64_t c = 0; c < shape.k; ++c) offset.push_back(extras ? static_cast<double>(random.below(9) - 4) / 8 : 0.0);
    }
    view.fit_intercept = extras;
    view.y = held(y);
    if (extras) {
      view.s = held(s);
      view.offset = held(offset);
    }
    for (std::int64_t j = 0; j < view.w_rows() * shape.k; ++j)
      w.push_back(static_cast<double>(static_cast<float>(random.uniform(-1, 1) / std::sqrt(static_cast<double>(shape.d)))));
  }
  Data(const Data&) = delete;
  Data& operator=(const Data&) = delete;

  long double x(std::int64_t i, std::int64_t j) const {
    return view.scale * wide_[static_cast<std::size_t>(i * shape_.d + j)] + view.shift;
  }

  nag::ProblemView view;
  std::vector<double> y, s, offset, w;

 private:
  void lay_out(Order order) {
    const std::ptrdiff_t item = static_cast<std::ptrdiff_t>(nag::kStorageBytes[static_cast<int>(view.storage)]);
    const std::ptrdiff_t n = static_cast<std::ptrdiff_t>(shape_.n), d = static_cast<std::ptrdiff_t>(shape_.d);
    std::ptrdiff_t row = d, col = 1;
    if (order == Order::f || order == Order::f_odd_byte) row = 1, col = n;
    if (order == Order::gap) row = 3 * d + 1, col = 2;
    if (order == Order::reversed) row = -d;
    const std::ptrdiff_t low = std::min<std::ptrdiff_t>(0, (n - 1) * row), high = std::max<std::ptrdiff_t>(0, (n - 1) * row) + (d - 1) * col;
    const std::size_t odd = order == Order::odd_byte || order == Order::f_odd_byte ? 1 : 0;
    bytes_ = std::make_unique<char[]>(odd + static_cast<std::size_t>((high - low + 1) * item));
    view.X = bytes_.get() + odd - low * item;
    view.row_stride = row * item;
    view.col_stride = col * item;
  }

  void store(std::int64_t i, std::int64_t j, Random& random) {
    char* const at = bytes_.get() + (static_cast<const char*>(view.X) - bytes_.get()) + i * view.row_stride + j * view.col_stride;
    long double& wide = wide_[static_cast<std::size_t>(i * shape_.d + j)];
    const double value = random.uniform();
    switch (view.storage) {
      case nag::Storage::f64: put(at, value); wide = value; break;
      case nag::Storage::f32: put(at, static_cast<float>(value)); wide = static_cast<float>(value); break;
      case nag::Storage::bf16: {
        const float narrow = static_cast<float>(value);
        std::uint32_t bits;
        std::memcpy(&bits, &narrow, 4);
        bits &= 0xFFFF0000u;
        put(at, static_cast<std::uint16_t>(bits >> 16));
        float back;
        std::memcpy(&back, &bits, 4);
        wide = back;
        break;
      }
      case nag::Storage::u8: {
        const std::uint8_t byte = static_cast<std::uint8_t>(random.bits());
        put(at, byte);
        wide = byte;
        break;
      }
    }
  }
  template <class E> static void put(char* at, E element) { std::memcpy(at, &element, sizeof element); }

  const void* held(const std::vector<double>& values) {
    if (view.compute == nag::Compute::f64) return values.data();
    vectors_.emplace_back(values.begin(), values.end());
    return vectors_.back().data();
  }

  Shape shape_;
  std::unique_ptr<char[]> bytes_;
  std::vector<long double> wide_;
  std::vector<std::vector<float>> vectors_;
};

struct Answer {
  double value;
  std::vector<double> grad;
  bool operator==(const Answer& o) const {
    return std::memcmp(&value, &o.value, sizeof value) == 0 && grad.size() == o.grad.size() &&
           std::memcmp(grad.data(), o.grad.data(), grad.size() * sizeof(double)) == 0;
  }
};

inline Answer pass(const Data& data, int n_threads, void* z = nullptr, void* r = nullptr) {
  Answer answer{0.0, std::vector<double>(data.w.size(), -77.0)};
  nag::PassRequest request;
  request.w = data.w.data();
  request.grad = answer.grad.data();
  request.z = z;
  request.r = r;
  request.n_threads = n_threads;
  answer.value = nag::run_pass(data.view, request).value;
  return answer;
}

}  // namespace nag_test
