// Each loss once, as scalar maths on the margin z: value phi(z, y), residual r = dphi/dz and curvature d2phi/dz2
// (docs/maths.md, L1 to L6).
// `eval` is a template over the vector, so this one text serves every instruction set and precision; isa/kernels.cc
// includes it inside its own namespace. `c` carries the loss's one parameter (huber's delta), unused elsewhere.
// No include guard: every per-ISA namespace reads it again.

template <class V> struct LossTerms { V value, residual, curvature; };

struct Squared {  // L1
  static constexpr const char* name = "squared";
  static constexpr Domain targets = Domain::real;
  static constexpr double curvature_bound = 1.0;
  template <class V> static NAG_INLINE LossTerms<V> eval(V z, V y, V) {
    const V r = z - y;
    return {V::set1(0.5f) * r * r, r, V::set1(1)};
  }
};

struct Logistic {  // L2; y is -1 or +1
  static constexpr const char* name = "logistic";
  static constexpr Domain targets = Domain::binary;
  static constexpr double curvature_bound = 0.25;
  template <class V> static NAG_INLINE LossTerms<V> eval(V z, V y, V) {
    const V m = y * z, t = exp(V::zero() - abs(z));
    const V top = select(V::zero() < m, t, V::set1(1));  // sigma(-m) = t/(1+t) or 1/(1+t), t = e^-|z| never overflows
    const V bottom = V::set1(1) + t;
    return {max(V::zero(), V::zero() - m) + log1p_unit(t), (V::zero() - y) * (top / bottom), t / (bottom * bottom)};
  }
};

struct Softmax {  // L3: couples the columns of a row, so kernels/softmax.h holds its arithmetic
  static constexpr const char* name = "softmax";
  static constexpr Domain targets = Domain::classes;
  static constexpr double curvature_bound = 0.5;
};

struct Huber {  // L4; c is delta
  static constexpr const char* name = "huber";
  static constexpr Domain targets = Domain::real;
  static constexpr double curvature_bound = 1.0;
  template <class V> static NAG_INLINE LossTerms<V> eval(V z, V y, V c) {
    const V u = z - y, r = min(c, max(V::zero() - c, u));  // u stands second: NaN passes through
    const V inside = select(c < abs(u), V::zero(), V::set1(1));
    return {r * (u - V::set1(0.5f) * r), r, inside};
  }
};

struct Poisson {  // L5, log link
  static constexpr const char* name = "poisson";
  static constexpr Domain targets = Domain::nonnegative;
  static constexpr double curvature_bound = kUnbounded;
  template <class V> static NAG_INLINE LossTerms<V> eval(V z, V y, V) {
    const V mu = exp(z);
    return {fnma(y, z, mu), mu - y, mu};
  }
};

struct SquaredHinge {  // L6; y is -1 or +1
  static constexpr const char* name = "squared_hinge";
  static constexpr Domain targets = Domain::binary;
  static constexpr double curvature_bound = 1.0;
  template <class V> static NAG_INLINE LossTerms<V> eval(V z, V y, V) {
    const V u = max(V::zero(), fnma(y, z, V::set1(1)));
    return {V::set1(0.5f) * u * u, (V::zero() - y) * u, select(V::zero() < u, V::set1(1), V::zero())};
  }
};
