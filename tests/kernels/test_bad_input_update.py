"""Bad input to the update: every tensor is checked before the first one is written."""

from __future__ import annotations

import numpy as np
import pytest

import nagcore
from cases import storage_type

SHAPES = [(5,), (3, 4), (7,)]


class Arrays:
    """Three float32 tensors of everything, and what they were."""

    def __init__(self, dtype="float32", work="float32"):
        rng = np.random.default_rng(0)
        make = lambda kind: [rng.normal(size=s).astype(storage_type(kind)) for s in SHAPES]  # noqa: E731
        self.params, self.grads = make(dtype), make(dtype)
        self.buffers, self.ema, self.master = make(work), make(work), make("float32")
        self.names = ["params", "grads", "buffers", "ema", "master"]
        self.keep()

    def keep(self):
        self.before = {n: [np.array(a, copy=True) for a in getattr(self, n)] for n in self.names}

    def refuse(self, match, error=ValueError, **how):
        """Both doors raise, and no array has changed."""
        extra = {}
        if how.pop("with_ema", False):
            extra.update(ema=self.ema)
            how.setdefault("ema_decay", 0.9)
        if how.pop("with_master", False):
            extra.update(master=self.master)
        how.setdefault("lr", 0.1)

        def function():
            nagcore.nesterov_step_(self.params, self.grads, self.buffers, **extra, **how)

        def plan():
            nagcore.NesterovPlan(self.params, self.grads, self.buffers, **extra).step(**how)

        for door in (function, plan):
            with pytest.raises(error, match=match):
                door()
            for name in self.names:
                for now, then in zip(getattr(self, name), self.before[name]):
                    np.testing.assert_array_equal(np.asarray(now), then, err_msg=name)


# ----------------------------------------------------------------------------------------- scalars
@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"lr": -0.1}, "^lr.*-0.1"),
        ({"lr": np.nan}, "^lr.*nan"),
        ({"lr": np.inf}, "^lr.*inf"),
        ({"momentum": -0.1}, "^momentum.*-0.1"),
        ({"momentum": np.nan}, "^momentum.*nan"),
        ({"lookahead": np.nan}, "^lookahead.*nan"),
        ({"weight_decay": -1e-9}, "^weight_decay.*-1e-0?9"),
        ({"weight_decay": np.inf}, "^weight_decay"),
        ({"dampening": np.nan}, "^dampening.*nan"),
        ({"dampening": 0.1}, "(?i)dampening.*nesterov|nesterov.*dampening"),
        (
            {"dampening": 0.1, "nesterov": False, "convention": "keras"},
            "dampening.*keras|keras.*dampening",
        ),
        ({"convention": "jax"}, "^convention.*jax.*torch.*keras"),
        ({"max_norm": -1.0}, "^max_norm.*-1"),
        ({"max_norm": np.nan}, "^max_norm.*nan"),
        ({"grad_scale": 0.0}, "^grad_scale.*0"),
        ({"grad_scale": np.inf}, "^grad_scale.*inf"),
        ({"grad_scale": np.nan}, "^grad_scale.*nan"),
        ({"ema_decay": 1.5, "with_ema": True}, "^ema_decay.*1.5"),
        ({"ema_decay": -0.5, "with_ema": True}, "^ema_decay.*-0.5"),
        ({"ema_decay": np.nan, "with_ema": True}, "^ema_decay.*nan"),
        ({"ema_decay": None, "with_ema": True}, "ema_decay"),
        ({"ema_decay": 0.9}, "ema"),
        ({"first_step": [True, False]}, "^first_step.*2.*3|^first_step.*3.*2"),
        ({"n_threads": 0}, "^n_threads.*0"),
        ({"n_threads": -2}, "^n_threads.*-2"),
        ({"seed": -1}, "^seed.*-1"),
        ({"seed": 2**64}, "^seed"),
    ],
    ids=str,
)
def test_scalars_out_of_range_are_refused(how, match):
    Arrays().refuse(match, error=(ValueError, OverflowError), **how)


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "max_norm"])
def test_scalars_that_are_no_numbers_are_refused(name):
    Arrays().refuse(name, error=(TypeError, ValueError), **{name: "fast"})


# -------------------------------------------------------------------------------- lists and shapes
@pytest.mark.parametrize("name", ["grads", "buffers", "ema"])
def test_lists_of_another_length(name):
    arrays = Arrays()
    setattr(arrays, name, getattr(arrays, name)[:2])
    arrays.keep()
    arrays.refuse(rf"{name}.*2.*3|{name}.*3.*2|3.*{name}.*2|2.*{name}.*3", with_ema=True)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", ["grads", "buffers", "ema"])
def test_shapes_that_differ_name_the_tensor(name, place):
    arrays = Arrays()
    getattr(arrays, name)[place] = np.zeros((2, 2), np.float32)
    arrays.keep()
    arrays.refuse(rf"{name}\[{place}\].*2, 2", with_ema=True)


def test_shapes_that_only_broadcast_are_refused():
    arrays = Arrays()
    arrays.grads[1] = np.zeros((1, 4), np.float32)
    arrays.keep()
    arrays.refuse(r"grads\[1\]")
    arrays = Arrays()
    arrays.grads[1] = np.zeros(12, np.float32)
    arrays.keep()
    arrays.refuse(r"grads\[1\]")


# ------------------------------------------------------------------------------------------ dtypes
@pytest.mark.parametrize(
    "dtype", ["int64", "int32", "uint8", "bool", "complex64", "object", "longdouble"]
)
@pytest.mark.parametrize("name", ["params", "grads", "buffers", "ema"])
def test_dtypes_that_are_not_read(name, dtype):
    arrays = Arrays()
    getattr(arrays, name)[2] = np.ones(7).astype(dtype)
    arrays.keep()
    arrays.refuse(
        rf"{name}\[2\].*{np.dtype(dtype).name}", error=(ValueError, TypeError), with_ema=True
    )


@pytest.mark.parametrize(
    ("param", "grad", "buffer"),
    [
        ("float32", "float64", "float32"),
        ("float32", "float32", "float64"),
        ("float64", "float32", "float64"),
        ("bfloat16", "bfloat16", "float16"),
        ("float16", "float16", "float16"),
        ("float32", "float32", "float16"),
        ("float64", "float64", "bfloat16"),
        ("bfloat16", "float16", "float32"),
        ("bfloat16", "float64", "float32"),
    ],
)
def test_dtypes_that_do_not_go_together(param, grad, buffer):
    arrays = Arrays()
    rng = np.random.default_rng(1)
    for name, kind in (("params", param), ("grads", grad), ("buffers", buffer)):
        setattr(arrays, name, [rng.normal(size=s).astype(storage_type(kind)) for s in SHAPES])
    arrays.keep()
    arrays.refuse(r"(grads|buffers)\[0\].*dtype")


def test_master_weights_are_for_16_bits_and_are_float32():
    Arrays().refuse("master", with_master=True)
    arrays = Arrays("bfloat16")
    arrays.master[1] = arrays.master[1].astype(np.float64)
    arrays.keep()
    arrays.refuse(r"master\[1\].*float64", with_master=True)


def test_uint16_without_a_dtype_is_not_guessed():
    arrays = Arrays("bfloat16")
    arrays.params = [p.view(np.uint16) for p in arrays.params]
    arrays.keep()
    arrays.refuse(r"params\[0\].*uint16.*bfloat16")


@pytest.mark.parametrize("name", ["params", "grads", "buffers"])
def test_lists_in_place_of_arrays_are_refused(name):
    """A list would be copied, and the copy written."""
    arrays = Arrays()
    getattr(arrays, name)[1] = getattr(arrays, name)[1].tolist()
    arrays.keep()
    arrays.refuse(rf"{name}\[1\]", error=(TypeError, ValueError))


# ------------------------------------------------------------------ writability, alignment, overlap
@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("name", ["params", "buffers", "ema", "master"])
def test_arrays_that_cannot_be_written(name, place):
    arrays = Arrays("bfloat16" if name == "master" else "float32")
    getattr(arrays, name)[place].flags.writeable = False
    arrays.refuse(
        rf"{name}\[{place}\].*(read-only|writ)", with_ema=True, with_master=name == "master"
    )


def test_read_only_gradients_are_fine():
    arrays = Arrays()
    for g in arrays.grads:
        g.flags.writeable = False
    nagcore.nesterov_step_(arrays.params, arrays.grads, arrays.buffers, lr=0.1)
    assert (arrays.params[2] != arrays.before["params"][2]).all()


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("name", ["params", "grads", "buffers", "ema"])
def test_misaligned_arrays(name, place):
    arrays = Arrays()
    old = getattr(arrays, name)[place]
    room = np.zeros(old.nbytes + 1, np.uint8)
    view = room[1:].view(np.float32)
    view[...] = old
    getattr(arrays, name)[place] = view
    arrays.refuse(rf"{name}\[{place}\].*align", with_ema=True)


def test_foreign_byte_order_is_refused_and_the_own_one_spelt_out_is_not():
    for order in "<>":
        arrays = Arrays()
        arrays.params[1] = arrays.params[1].astype(np.dtype(np.float32).newbyteorder(order))
        arrays.keep()
        if arrays.params[1].dtype.isnative:
            nagcore.nesterov_step_(arrays.params, arrays.grads, arrays.buffers, lr=0.1)
        else:
            arrays.refuse(r"params\[1\].*byte")


def room_for(arrays, first, second, shift):
    """Make two arrays, given as (name, place), views of one room, so many elements apart."""
    (a, i), (b, j) = first, second
    n = getattr(arrays, a)[i].size
    room = np.linspace(0, 1, n + 16, dtype=np.float32)
    getattr(arrays, a)[i] = room[:n].reshape(SHAPES[i])
    getattr(arrays, b)[j] = room[shift : shift + getattr(arrays, b)[j].size].reshape(SHAPES[j])
    arrays.keep()


@pytest.mark.parametrize("shift", [0, 1, 4])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("params", 0), ("params", 2)),
        (("params", 0), ("buffers", 0)),
        (("params", 2), ("grads", 2)),
        (("buffers", 0), ("buffers", 2)),
        (("buffers", 0), ("grads", 2)),
        (("ema", 0), ("params", 2)),
        (("ema", 2), ("buffers", 0)),
        (("grads", 0), ("params", 1)),
    ],
    ids=str,
)
def test_arrays_that_overlap(first, second, shift):
    arrays = Arrays()
    room_for(arrays, first, second, shift)
    arrays.refuse("overlap|share", with_ema=True)


def test_the_same_parameter_twice():
    arrays = Arrays()
    arrays.params[2] = arrays.params[0]
    arrays.grads[2] = np.ones(5, np.float32)
    arrays.buffers[2] = np.ones(5, np.float32)
    arrays.keep()
    arrays.refuse("overlap|share|twice|same")


def test_an_array_that_overlaps_itself():
    """A zero stride: every element written where the others are."""
    arrays = Arrays()
    one = np.ones(1, np.float32)
    arrays.params[0] = np.lib.stride_tricks.as_strided(one, (5,), (0,))
    arrays.keep()
    arrays.refuse(r"params\[0\]")


def test_gradients_may_share_memory_with_one_another():
    """They are only read: one gradient for two parameters is no mistake, nor a broadcast one."""
    p, b = np.ones((2, 6), np.float32), np.ones((2, 6), np.float32)
    g = np.linspace(0, 1, 6, dtype=np.float32)
    nagcore.nesterov_step_([p[0], p[1]], [g, g], [b[0], b[1]], lr=0.1)
    np.testing.assert_array_equal(p[0], p[1])
    q, c, flat = np.ones(6, np.float32), np.ones(6, np.float32), np.ones(6, np.float32)
    want = q.copy(), c.copy()
    nagcore.nesterov_step_(*[[a] for a in (want[0], flat, want[1])], lr=0.1)
    nagcore.nesterov_step_(q, np.broadcast_to(np.float32(1), (6,)), c, lr=0.1)
    np.testing.assert_array_equal(q, want[0])


def test_neighbours_in_one_room_do_not_overlap():
    """Slices of one flat array, and interleaved columns of one matrix, touch but do not share."""
    flat = np.linspace(0, 1, 60, dtype=np.float32)
    want, pieces = flat.copy(), [flat[i * 10 : (i + 1) * 10] for i in range(6)]
    nagcore.nesterov_step_(pieces[:2], pieces[2:4], pieces[4:], lr=0.1)
    assert (flat[:20] != want[:20]).any()
    np.testing.assert_array_equal(flat[20:40], want[20:40])
    room = np.ones((9, 3), np.float32)
    nagcore.nesterov_step_(room[:, 0], room[:, 1], room[:, 2], lr=0.1)
    assert (room[:, 1] == 1).all()
    assert (room[:, 0] != 1).all()


def test_plan_keeps_its_arrays_alive_and_refuses_what_it_was_not_given():
    p, g, b = np.ones(1000, np.float32), np.ones(1000, np.float32), np.zeros(1000, np.float32)
    plan = nagcore.NesterovPlan([p], [g], [b])
    with pytest.raises(ValueError, match="ema"):
        plan.step(lr=0.1, ema_decay=0.9)
    assert (p == 1).all()
    view = p[:]
    del p, g, b
    junk = [np.full(1000, 9.0, np.float32) for _ in range(8)]
    plan.step(lr=0.5, momentum=0.0, nesterov=False)
    assert (view == 0.5).all()
    assert all((j == 9).all() for j in junk)
