"""Arrays as they come: any strides give the right result, and what cannot be is one clear error,
with nothing written."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nagcore import NesterovPlan, nesterov_step_

F32, F64 = np.float32, np.float64


# ----- strides ------------------------------------------------------------------------------------


@st.composite
def strided(draw, shape):
    """A function from a seed to a view of that shape: its axes permuted, cut and reversed."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 1, 2, -1, -3])) for _ in shape]
    extra = [draw(st.integers(0, 2)) for _ in shape]

    def make(seed, dtype):
        inner = [shape[axis] * abs(steps[axis]) + extra[axis] for axis in order]
        whole = np.random.default_rng(seed).standard_normal(inner).astype(dtype)
        view = whole.transpose(np.argsort(order))
        for axis, (n, step) in enumerate(zip(shape, steps, strict=False)):
            cut = [slice(None)] * len(shape)
            cut[axis] = slice(0, n * abs(step), abs(step))
            view = view[tuple(cut)]
            view = np.flip(view, axis) if step < 0 else view
        assert view.shape == tuple(shape)
        return view, whole

    return make


@st.composite
def strided_cases(draw):
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 5, 17, 70]), min_size=1, max_size=3))
    return [draw(strided(shape)) for _ in range(4)]


@given(
    makes=strided_cases(), dtype=st.sampled_from([F32, F64, np.float16]), seed=st.integers(0, 99)
)
def test_any_strides_give_the_contiguous_result(makes, dtype, seed):
    state = F32 if dtype == np.float16 else dtype
    (p, p_all), (g, g_all), (b, b_all), (e, e_all) = (
        make(seed + i, t)
        for i, (make, t) in enumerate(zip(makes, (dtype, dtype, state, state), strict=False))
    )
    want = [np.ascontiguousarray(a) for a in (p, g, b, e)]
    want = [a.copy() for a in want]
    settings = {"lr": 0.1, "weight_decay": 0.1, "ema_decay": 0.9, "check_finite": True}
    expected = nesterov_step_(want[0], want[1], want[2], ema=want[3], **settings)
    untouched = [whole.copy() for whole in (p_all, g_all, b_all, e_all)]
    report = nesterov_step_(p, g, b, ema=e, **settings)
    for got, w in zip((p, g, b, e), want, strict=False):
        np.testing.assert_array_equal(got, w)
    assert report.elements == expected.elements
    assert report.grad_norm == pytest.approx(expected.grad_norm, rel=1e-13)
    # what lies between the elements of a view is not written
    for got, whole, before in zip(
        (p, g, b, e), (p_all, g_all, b_all, e_all), untouched, strict=False
    ):
        got[...] = 0
        changed = whole != before
        np.testing.assert_array_equal(whole[changed], 0)


def test_strided_result_has_the_same_bits_on_any_threads():
    results = set()
    for n_threads in (1, 2, 3, 8):
        rng = np.random.default_rng(1)
        q, h, c = (rng.standard_normal((300, 300)).astype(F32) for _ in range(3))
        report = nesterov_step_(q.T, h, c[::-1], lr=0.1, n_threads=n_threads, max_norm=1.0)
        results.add((report, q.tobytes(), c.tobytes()))
    assert len(results) == 1


def test_dense_permutations_take_the_straight_way():
    """Channels last, Fortran order and reversed views are one run in memory."""
    rng = np.random.default_rng(2)
    shape = (3, 4, 5, 6)
    for order in ((0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 2, 3)):
        made = [rng.standard_normal([shape[i] for i in order]).astype(F32) for _ in range(3)]
        flat = [a.ravel().copy() for a in made]
        views = [a.transpose(np.argsort(order)) for a in made]
        assert views[0].shape == shape
        report = nesterov_step_(*views, lr=0.1)
        same = nesterov_step_(*flat, lr=0.1)
        assert report == same  # the norm's bits show the order of the sum
        for a, f in zip(made, flat, strict=False):
            np.testing.assert_array_equal(a.ravel(), f)


def test_interleaved_views_do_not_overlap():
    base = np.arange(20, dtype=F64)
    nesterov_step_(base[::2], np.ones(10), base[1::2], lr=1.0, momentum=0.5, first_step=True)
    np.testing.assert_array_equal(base[1::2], np.ones(10))
    np.testing.assert_array_equal(base[::2], np.arange(0, 20, 2) - 1.5)


def test_gradients_may_be_shared_and_broadcast_and_read_only():
    g = np.broadcast_to(F32(2), (4, 5))
    params = [np.zeros((4, 5), F32) for _ in range(2)]
    nesterov_step_(params, [g, g], None, lr=0.5, momentum=0.0, nesterov=False)
    for p in params:
        np.testing.assert_array_equal(p, np.full((4, 5), -1, F32))


# ----- bad input ----------------------------------------------------------------------------------


def good():
    return [[np.ones((3, 4), F32), np.ones(5, F32)] for _ in range(3)]


def read_only(a):
    a.setflags(write=False)
    return a


def misaligned(n=5):
    return np.zeros(4 * n + 1, np.uint8)[1:].view(F32)


def replace(group, index, value):
    def change():
        lists = good()
        lists[group][index] = value(lists) if callable(value) else value
        return lists

    return change


ARRAYS = {
    "fewer grads": (
        lambda: [good()[0], good()[1][:1], good()[2]],
        ValueError,
        r"grads has 1 arrays and params has 2",
    ),
    "fewer buffers": (
        lambda: [good()[0], good()[1], good()[2][:1]],
        ValueError,
        r"buffers has 1 arrays",
    ),
    "array and list": (
        lambda: [good()[0][0], good()[1], good()[2]],
        TypeError,
        r"grads is a sequence while params is one",
    ),
    "params None": (lambda: [None, good()[1], good()[2]], TypeError, r"params is None"),
    "grads None": (lambda: [good()[0], None, good()[2]], TypeError, r"grads is None"),
    "params text": (lambda: ["abc", good()[1], good()[2]], TypeError, r"params is str"),
    "params number": (lambda: [3, good()[1], good()[2]], TypeError, r"params is int"),
    "grad None": (replace(1, 1, None), TypeError, r"grads\[1\] is NoneType"),
    "grad list": (replace(1, 1, [1.0] * 5), TypeError, r"grads\[1\] is list.*NumPy arrays"),
    "grad shape": (
        replace(1, 1, np.ones(6, F32)),
        ValueError,
        r"grads\[1\] has shape \(6,\).*params\[1\].*\(5,\)",
    ),
    "grad rank": (
        replace(1, 1, np.ones((5, 1), F32)),
        ValueError,
        r"grads\[1\] has shape \(5, 1\)",
    ),
    "buffer shape": (
        replace(2, 0, np.ones((4, 3), F32)),
        ValueError,
        r"buffers\[0\] has shape \(4, 3\).*\(3, 4\)",
    ),
    "integer params": (
        replace(0, 1, np.ones(5, np.int64)),
        ValueError,
        r"params\[1\] has dtype int64.*astype\(np.float32\)",
    ),
    "complex grads": (
        replace(1, 1, np.ones(5, complex)),
        ValueError,
        r"grads\[1\] has dtype complex128",
    ),
    "object grads": (replace(1, 1, np.ones(5, object)), ValueError, r"grads\[1\] has dtype object"),
    "long double": (
        replace(0, 1, np.ones(5, np.longdouble)),
        ValueError,
        r"params\[1\] has dtype (long|float128)",
    ),
    "wide grads": (
        replace(1, 1, np.ones(5, F64)),
        ValueError,
        r"grads\[1\] has dtype float64.*must be float32",
    ),
    "wide buffers": (
        replace(2, 1, np.ones(5, F64)),
        ValueError,
        r"buffers\[1\] has dtype float64.*must be float32",
    ),
    "uint16": (
        replace(0, 1, np.ones(5, np.uint16)),
        ValueError,
        r"params\[1\] has dtype uint16.*dtype=\"bfloat16\"",
    ),
    "byte order": (
        replace(0, 1, np.ones(5, ">f4")),
        ValueError,
        r"params\[1\].*foreign byte order.*newbyteorder",
    ),
    "read-only param": (
        replace(0, 1, read_only(np.ones(5, F32))),
        ValueError,
        r"params\[1\] is not writable.*\.copy\(\)",
    ),
    "read-only buffer": (
        replace(2, 1, read_only(np.ones(5, F32))),
        ValueError,
        r"buffers\[1\] is not writable",
    ),
    "misaligned param": (
        replace(0, 1, misaligned()),
        ValueError,
        r"params\[1\] is misaligned.*\.copy\(\)",
    ),
    "misaligned grad": (replace(1, 1, misaligned()), ValueError, r"grads\[1\] is misaligned"),
    "same param twice": (
        lambda: [[good()[0][1]] * 2, [good()[1][1]] * 2, [np.ones(5, F32), np.ones(5, F32)]],
        ValueError,
        r"params\[0\] and params\[1\] overlap",
    ),
    "grad is param": (
        replace(1, 1, lambda a: a[0][1]),
        ValueError,
        r"params\[1\] and grads\[1\] overlap",
    ),
    "buffer is grad": (
        replace(2, 1, lambda a: a[1][1]),
        ValueError,
        r"grads\[1\] and buffers\[1\] overlap",
    ),
    "buffer is other param": (
        replace(2, 1, lambda a: a[0][0].ravel()[3:8]),
        ValueError,
        r"params\[0\] and buffers\[1\] overlap",
    ),
    "broadcast param": (
        replace(0, 1, np.lib.stride_tricks.as_strided(np.ones(1, F32), (5,), (0,))),
        ValueError,
        r"params\[1\] overlaps itself",
    ),
    "overlapping windows": (
        replace(0, 0, np.lib.stride_tricks.as_strided(np.ones(6, F32), (3, 4), (4, 4))),
        ValueError,
        r"params\[0\] overlaps itself",
    ),
}


DOORS = {
    "call": lambda lists: nesterov_step_(*lists, lr=0.1),
    "plan": lambda lists: NesterovPlan(*lists),
}


def contents(lists):
    groups = [group for group in lists if isinstance(group, list)]
    return [a.tobytes() for group in groups for a in group if isinstance(a, np.ndarray)]


@pytest.mark.parametrize("case", ARRAYS)
@pytest.mark.parametrize("door", DOORS)
def test_bad_arrays_are_refused_before_anything_is_written(case, door):
    make, error, message = ARRAYS[case]
    lists = make()
    before = contents(lists)
    with pytest.raises(error, match=message):
        DOORS[door](lists)
    assert contents(lists) == before


def test_shifted_views_overlap():
    base = np.ones(11, F32)
    with pytest.raises(ValueError, match="params and buffers overlap"):
        nesterov_step_(base[1:], np.ones(10, F32), base[:-1], lr=0.1)
    with pytest.raises(ValueError, match="params and buffers overlap"):
        nesterov_step_(base[:10:2], np.ones(5, F32), base[2:7], lr=0.1)
    assert (base == 1).all()


@pytest.mark.parametrize("shuffle", [False, True])
def test_one_overlap_among_thousands_is_found(shuffle):
    rng = np.random.default_rng(3)
    base = np.zeros(3 * 4000 * 8, F32)
    pieces = [base[i * 8 : i * 8 + 8] for i in range(3 * 4000)]
    if shuffle:
        pieces = [pieces[i] for i in rng.permutation(len(pieces))]
    lists = [pieces[:4000], pieces[4000:8000], pieces[8000:]]
    assert nesterov_step_(*lists, lr=0.1).tensors == 4000
    lists[2][1234] = lists[0][777]
    with pytest.raises(ValueError, match=re.escape("params[777] and buffers[1234] overlap")):
        nesterov_step_(*lists, lr=0.1)


def one():
    return np.ones(5, F32), np.ones(5, F32), np.ones(5, F32)


NOT_FINITE = [np.nan, np.inf, -np.inf]
SCALARS = [
    *[
        ({name: v}, ValueError, f"{name} is")
        for name in ("lr", "momentum", "lookahead", "dampening", "weight_decay", "grad_scale")
        for v in NOT_FINITE
    ],
    *[
        ({name: -0.5}, ValueError, f"{name} is -0.5")
        for name in ("lr", "momentum", "lookahead", "weight_decay", "grad_scale", "max_norm")
    ],
    *[
        ({name: "0.1"}, TypeError, f"{name} is '0.1'.*real number")
        for name in (
            "lr",
            "momentum",
            "lookahead",
            "dampening",
            "weight_decay",
            "grad_scale",
            "max_norm",
        )
    ],
    *[
        ({name: "yes"}, TypeError, f"{name} is 'yes'.*True or False")
        for name in ("decoupled", "nesterov", "maximize", "check_finite", "first_step")
    ],
    ({"maximize": None}, TypeError, "maximize is None.*True or False"),
    ({"lr": None}, TypeError, "lr is None"),
    ({"lr": 1e39}, ValueError, "lr is beyond float32"),
    ({"grad_scale": 1e-60}, ValueError, "grad_scale is 0 in float32"),
    ({"grad_scale": 0.0}, ValueError, "grad_scale is 0.0; it must be positive"),
    ({"max_norm": np.nan}, ValueError, "max_norm is nan"),
    ({"max_norm": 0.0}, ValueError, "max_norm is 0.0"),
    ({"convention": "jax"}, ValueError, 'is \'jax\'; it is "torch", "keras", "keras-torch" or "keras-jax"'),
    ({"convention": None}, ValueError, "convention is None"),
    ({"momentum": 0.0}, ValueError, "nesterov=True needs momentum > 0.*nesterov=False"),
    ({"dampening": 0.1}, ValueError, "nesterov=True needs dampening=0"),
    ({"dampening": 0.1, "convention": "keras"}, ValueError, "the keras convention has none"),
    ({"lookahead": 0.5, "nesterov": False}, ValueError, "lookahead was given with nesterov=False"),
    ({"ema_decay": 0.9}, ValueError, "ema_decay was given without ema"),
    ({"ema": np.ones(5, F32)}, ValueError, "ema was given without ema_decay"),
    (
        {"ema": np.ones(5, F32), "ema_decay": 1.5},
        ValueError,
        r"ema_decay is 1.5; it must lie in \[0, 1\]",
    ),
    ({"ema": np.ones(5, F32), "ema_decay": np.nan}, ValueError, "ema_decay is nan"),
    ({"ema": np.ones(4, F32), "ema_decay": 0.5}, ValueError, r"ema has shape \(4,\)"),
    ({"ema": np.ones(5, F64), "ema_decay": 0.5}, ValueError, "ema has dtype float64"),
    ({"master": np.ones(5, F32)}, ValueError, "master was given for a parameter of dtype float32"),
    ({"dtype": "float32"}, ValueError, "dtype is 'float32'"),
    ({"seed": -1}, ValueError, "seed is -1"),
    ({"seed": 2**64}, ValueError, "seed is 18446744073709551616"),
    ({"seed": 1.5}, ValueError, "seed is 1.5"),
    ({"n_threads": 0}, ValueError, "n_threads is 0"),
    ({"n_threads": -2}, ValueError, "n_threads is -2"),
    ({"n_threads": 2.0}, ValueError, "n_threads is 2.0"),
    ({"first_step": [True, False]}, ValueError, "first_step has 2 entries and params has 1 arrays"),
]


@pytest.mark.parametrize(
    ("change", "error", "message"), SCALARS, ids=lambda v: str(v) if isinstance(v, dict) else ""
)
def test_bad_scalars_are_refused_before_anything_is_written(change, error, message):
    p, g, b = one()
    with pytest.raises(error, match=message):
        nesterov_step_(p, g, b, **{"lr": 0.1, **change})
    for a in (p, g, b):
        np.testing.assert_array_equal(a, 1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [s for s in SCALARS if not {"ema", "ema_decay", "master", "dtype"} & set(s[0])],
    ids=lambda v: str(v) if isinstance(v, dict) else "",
)
def test_bad_scalars_are_refused_by_a_plan(change, error, message):
    p, g, b = one()
    plan = NesterovPlan(p, g, b)
    with pytest.raises(error, match=message):
        plan.step(**{"lr": 0.1, **change})
    for a in (p, g, b):
        np.testing.assert_array_equal(a, 1)
    assert plan.step(lr=0.1).elements == 5  # and the plan is as good as before


def test_buffers_are_needed_with_momentum():
    p, g, _ = one()
    with pytest.raises(ValueError, match="buffers is None and momentum is not 0"):
        nesterov_step_(p, g, None, lr=0.1)
    with pytest.raises(ValueError, match="buffers is None and momentum is not 0"):
        NesterovPlan(p, g, None).step(lr=0.1)
    assert (p == 1).all()


def test_float16_state_is_refused():
    p, g, b = (np.ones(5, np.float16) for _ in range(3))
    with pytest.raises(
        ValueError, match=r"buffers has dtype float16.*must be float32.*astype\(np.float32\) once"
    ):
        nesterov_step_(p, g, b, lr=0.1)
    assert (p == 1).all()


def test_scalars_come_in_many_types():
    want, g, b = one()
    nesterov_step_(want, g, b, lr=0.25, momentum=0.5, seed=3, first_step=True, n_threads=2)
    for kind in (np.float32, np.float64, np.array):
        p, g, b = one()
        report = nesterov_step_(
            p,
            g,
            b,
            lr=kind(0.25),
            momentum=kind(0.5),
            seed=np.int64(3),
            first_step=np.True_,
            n_threads=np.int32(2),
        )
        np.testing.assert_array_equal(p, want)
        assert report.elements == 5


def test_errors_speak_of_the_array_that_was_given():
    p, g, b = one()
    with pytest.raises(
        ValueError,
        match=r"^grads has dtype int32; nesterov_step_ works on float64, float32, bfloat16",
    ):
        nesterov_step_(p, g.astype(np.int32), b, lr=0.1)
    with pytest.raises(ValueError, match=r"^grads\[0\] has dtype int32"):
        nesterov_step_([p], [g.astype(np.int32)], [b], lr=0.1)
