"""EarlyStopping keeps the best and knows when to stop; Batches take data up at the very batch."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nagcore
from nagcore.callbacks import Batches, EarlyStopping

METRICS = st.lists(st.floats(), min_size=1, max_size=30)


@given(METRICS, st.integers(1, 5), st.floats(0, 10), st.sampled_from(["min", "max"]))
def test_it_stops_and_keeps_the_best(metrics, patience, min_delta, mode):
    stopper, w = EarlyStopping(patience, min_delta=min_delta, mode=mode), np.zeros(1)
    sign = 1 if mode == "min" else -1
    best, best_step, counted, waited = math.inf, None, None, 0
    for step, metric in enumerate(metrics, start=1):
        w[0] = step
        stop = stopper.update(metric, weights=w)
        x = sign * metric
        if not math.isnan(x) and (best_step is None or x < best):
            best, best_step = x, step
        if not math.isnan(x) and (counted is None or x < counted - min_delta):
            counted, waited = x, 0
        else:
            waited += 1
        assert stop == stopper.stopped == (waited >= patience)
        if stop:
            break
    if best_step is None:
        assert math.isnan(stopper.best)
        assert stopper.best_weights is None
    else:
        assert stopper.best == sign * best
        stopper.restore(w)
        assert w[0] == best_step


def test_the_best_weights_come_back_after_a_run_to_the_end():
    stopper, params = EarlyStopping(patience=100), {"w": np.zeros(3), "deep": [np.zeros((2, 2)), np.ones(1)]}
    for loss in (3.0, 1.0, 2.0, 2.5):
        params["w"] += 1
        params["deep"][0][...] = -loss
        assert not stopper.update(loss, weights=params)
    kept = params["w"]
    stopper.restore(params)
    assert kept is params["w"]  # in place
    assert kept.tolist() == [2.0, 2.0, 2.0]
    assert params["deep"][0][0, 0] == -1.0


def test_a_gain_below_min_delta_does_not_count_but_is_kept():
    stopper = EarlyStopping(patience=3, min_delta=0.1)
    assert [stopper.update(m, weights=np.array([m])) for m in (1.0, 0.95, 0.94, 0.93)] == [False] * 3 + [True]
    assert stopper.best_weights[0] == 0.93
    slow = EarlyStopping(patience=3, min_delta=0.1)  # small gains add up to one that counts
    assert not any(slow.update(m) for m in np.arange(1.0, 0.0, -0.06))


def test_weights_of_torch_are_copied_and_restored():
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    want = {name: value.clone() for name, value in model.state_dict().items()}
    stopper = EarlyStopping()
    stopper.update(0.5, weights=model.state_dict())
    with torch.no_grad():
        model.weight += 1
    stopper.update(0.6, weights=model.state_dict())
    stopper.restore(dict(model.named_parameters()))
    for name, value in model.state_dict().items():
        assert torch.equal(value, want[name])


def test_a_callable_is_called_only_at_the_best():
    calls, stopper = [], EarlyStopping(patience=9)
    for metric in (3.0, 4.0, 2.0, math.nan, 2.0):
        stopper.update(metric, weights=lambda metric=metric: calls.append(metric) or metric)
    assert calls == [3.0, 2.0]
    assert stopper.best_weights == 2.0


@pytest.mark.parametrize("other", [
    {"w": np.zeros(4)}, {"v": np.zeros(3)}, {}, [np.zeros(3)], np.zeros(3), {"w": np.zeros(3, np.float32)},
    {"w": np.zeros(3), "x": np.zeros(1)}, {"w": 3.0},
])  # fmt: skip
def test_weights_of_another_form_are_refused_and_not_written(other):
    stopper = EarlyStopping()
    stopper.update(1.0, weights={"w": np.ones(3)})
    with pytest.raises(ValueError, match=r"Restore what|best_weights"):
        stopper.restore(other)
    for a in other.values() if isinstance(other, dict) else [other]:
        assert np.all(np.asarray(a) != 1.0)
    with pytest.raises(ValueError, match="no best weights"):
        EarlyStopping().restore(np.zeros(3))


def test_the_state_goes_through_json_and_continues():
    metrics = np.random.default_rng(0).uniform(size=40) + np.linspace(1, 0, 40)
    whole, stopper = EarlyStopping(8, min_delta=0.05), EarlyStopping(8, min_delta=0.05)
    for metric in metrics[:15]:
        whole.update(metric)
        stopper.update(metric)
    again = EarlyStopping(8, min_delta=0.05)
    again.load_state_dict(json.loads(json.dumps(stopper.state_dict())), best_weights=[1])
    assert again.best_weights == [1]
    assert [again.update(m) for m in metrics[15:]] == [whole.update(m) for m in metrics[15:]]
    assert again.state_dict() == whole.state_dict()
    before = again.state_dict()
    for bad in ({}, {**before, "waited": "x"}, {**before, "best": None}):
        with pytest.raises(ValueError, match="no state of an EarlyStopping"):
            again.load_state_dict(bad)
    assert again.state_dict() == before


@pytest.mark.parametrize("bad", [
    lambda: EarlyStopping(0), lambda: EarlyStopping(min_delta=-1), lambda: EarlyStopping(min_delta=math.nan),
    lambda: EarlyStopping(mode="low"), lambda: EarlyStopping(monitor="loss"),
    lambda: Batches(0, 5), lambda: Batches(5, 0), lambda: Batches(5, 2, seed=-1),
    lambda: Batches(3, 5, drop_last=True),
])  # fmt: skip
def test_bad_arguments_are_one_clear_error(bad):
    with pytest.raises(ValueError, match="Use "):
        bad()
    with pytest.raises(TypeError, match="Use metric"):
        EarlyStopping().update("low")


@pytest.mark.parametrize("monitor", ["value", "gap", "relative_gap"])
def test_minimize_stops_when_it_no_longer_gains(monitor):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 20)) * np.logspace(0, 2, 20)
    y = (X[:, 0] + rng.normal(size=400) > 0).astype(float)
    objective = nagcore.Objective(X, y, loss="logistic", l2=1e-8)
    stopper = EarlyStopping(3, min_delta=1e-3, monitor=monitor)
    for _ in range(2):  # a new run forgets the one before
        found = nagcore.minimize(objective, solver="fista", tol=1e-15, callbacks=[stopper])
        assert found.message == "stopped by a callback"
        assert stopper.waited == 3
    assert stopper.stopped
    if monitor == "value":
        assert stopper.best >= found.value


# Batches --------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**40), st.booleans(), st.booleans())
def test_an_epoch_has_every_row_once(n, size, seed, shuffle, drop_last):
    if drop_last and n < size:
        return
    batches = Batches(n, size, seed=seed, shuffle=shuffle, drop_last=drop_last)
    for epoch in range(2):
        assert batches.epoch == epoch
        got = list(batches)
        assert len(got) == len(batches)
        assert all(len(rows) == size for rows in got[:-1])
        rows = np.concatenate(got)
        kept = n // size * size if drop_last else n
        assert len(rows) == len(set(rows.tolist())) == kept
        assert set(rows.tolist()) <= set(range(n))
        assert shuffle or rows.tolist() == list(range(kept))


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 60))
def test_they_go_on_from_any_batch(n, size, stop):
    def walk(batches):
        while True:
            for rows in batches:
                yield batches.epoch, rows.tolist()

    whole, part = Batches(n, size, seed=3), Batches(n, size, seed=3)
    expected, first = walk(whole), walk(part)
    for _ in range(stop):
        assert next(expected) == next(first)
    again = Batches(n, size, seed=3)
    again.load_state_dict(json.loads(json.dumps(part.state_dict())))
    second = walk(again)
    for _ in range(20):
        assert next(expected) == next(second)


def test_epochs_and_seeds_differ_and_the_order_is_pinned():
    """A file written today is to resume in years: the order may never change."""
    def orders(seed):
        batches = Batches(8, 8, seed=seed)
        return [next(iter(list(batches))).tolist() for _ in range(3)]

    assert len({tuple(order) for seed in range(4) for order in orders(seed)}) == 12
    assert orders(0)[0] == [3, 2, 1, 6, 0, 7, 4, 5]


@pytest.mark.parametrize("change", [
    {"n": 9}, {"seed": 1}, {"batch_size": 3}, {"shuffle": False}, {"position": 99}, {"epoch": -1},
    {"position": None},
])  # fmt: skip
def test_a_state_of_other_data_is_refused(change):
    batches = Batches(8, 4)
    with pytest.raises(ValueError, match=r"Make them|Use "):
        batches.load_state_dict({**batches.state_dict(), **change})
    assert (batches.epoch, batches.position) == (0, 0)
