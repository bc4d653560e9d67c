// exp, log1p on [0,1] and log for positive normals: branch-free polynomials, about 1 ulp, NaN in gives NaN out.
// Coefficients interpolate (e^r - 1 - r)/r^2 and (atanh(t)/t - 1)/t^2 at Chebyshev nodes of the reduced ranges
// |r| <= ln2/2 and t^2 <= 1/9; the remaining relative error is below 1e-8 in f32 and 2e-17 in f64.
// Included inside the per-ISA namespace.

template <class V, class C, int K>
NAG_INLINE V horner(V x, const C (&c)[K]) {
  V p = V::set1(c[K - 1]);
  for (int i = K - 2; i >= 0; --i) p = fma(p, x, V::set1(c[i]));
  return p;
}

template <class T> struct MathConstants;
template <> struct MathConstants<float> {
  // Beyond these e^x is infinity or zero. NaN passes: min and max hand back their second operand.
  static constexpr float exp_hi = 89.0f, exp_lo = -104.0f, log2e = 1.44269504f;
  static constexpr float ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f;  // n*ln2_hi is exact (Cody and Waite)
  static constexpr float exp_q[5] = {0.5f, 0.166665769896987757f, 0.0416665546172045742f, 0.00836317905272257737f,
                                     0.00139261835877134945f};
  static constexpr float atanh_q[5] = {0.333333336602637062f, 0.199998531659648587f, 0.142961789971514189f,
                                       0.108532879004401863f, 0.116121646120116744f};
};
template <> struct MathConstants<double> {
  static constexpr double exp_hi = 710.0, exp_lo = -746.0, log2e = 1.4426950408889634074;
  static constexpr double ln2_hi = 6.93145751953125e-1, ln2_lo = 1.42860682030941723212e-6;
  static constexpr double exp_q[10] = {0.500000000000000102,   0.166666666666666675,   0.0416666666666241279,
                                       0.00833333333333006183, 0.00138888889172137169, 0.000198412698630536169,
                                       2.48015212959543751e-5, 2.75572684599970648e-6, 2.76200884454097482e-7,
                                       2.51003854955103191e-8};
  static constexpr double atanh_q[10] = {0.333333333333333293, 0.200000000000072913, 0.142857142835543786,
                                         0.111111113587139315, 0.0909089471806642908, 0.0769278503247931155,
                                         0.0665707210482746808, 0.0600053640479535627, 0.0440036924307233694,
                                         0.0808202280597176611};
};

template <class V> NAG_INLINE V exp(V x) {
  using C = MathConstants<typename V::T>;
  x = min(V::set1(C::exp_hi), max(V::set1(C::exp_lo), x));
  const V n = round_even(x * V::set1(C::log2e));
  V r = fnma(n, V::set1(C::ln2_hi), x);
  r = fnma(n, V::set1(C::ln2_lo), r);
  const V p = fma(r * r, horner(r, C::exp_q), r) + V::set1(1);
  return scale2(p, n);
}

// 2 atanh(t) for |t| <= 1/3
template <class V> NAG_INLINE V twice_atanh(V t) {
  const V s = t * t, t2 = t + t;
  return fma(t2 * s, horner(s, MathConstants<typename V::T>::atanh_q), t2);
}
template <class V> NAG_INLINE V log1p_unit(V u) { return twice_atanh(u / (V::set1(2) + u)); }

template <class V> NAG_INLINE V log(V x) {
  using C = MathConstants<typename V::T>;
  V m;
  const V e = split2(x, m);
  const V t = (m - V::set1(1)) / (m + V::set1(1));
  return fma(e, V::set1(C::ln2_hi), fma(e, V::set1(C::ln2_lo), twice_atanh(t)));
}
