"""Checkpoint files: every bit comes back, all damage is noticed, nothing is unpickled; what is kept."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import random
import zipfile

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nagcore
from nagcore.callbacks import Checkpoint, CheckpointError, state_file
from nagcore.callbacks.state_file import Damaged, read_metadata, read_state, write_state

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16",
          "float32", "float64", "complex64", "complex128"]  # fmt: skip
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
STATES = st.dictionaries(st.text(max_size=10).filter(lambda name: name != "__metadata__"), ARRAYS, max_size=5)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**130), 2**130), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text().filter(lambda key: not key.startswith("$")), inner, max_size=3)),
    max_leaves=8)  # fmt: skip


def bits(a):
    """Everything about an array that a later step could notice."""
    return a.dtype.newbyteorder("="), a.shape, a.tobytes()


@given(state=STATES, metadata=st.dictionaries(st.sampled_from("abc"), VALUES))
def test_every_bit_comes_back(tmp_path_factory, state, metadata):
    path = tmp_path_factory.mktemp("s") / "a.safetensors"
    write_state(path, state, metadata)
    found, notes = read_state(path)
    assert list(found) == list(state)
    for name, a in state.items():
        assert bits(found[name]) == bits(a)
        assert found[name].flags.writeable
    assert repr(notes) == repr(metadata)
    assert repr(read_metadata(path)) == repr(metadata)


def test_any_memory_order_is_written_and_c_and_fortran_come_back(tmp_path):
    a = np.arange(24.0).reshape(2, 3, 4)
    state = {"c": a, "f": np.asfortranarray(a), "t": a.transpose(1, 0, 2), "s": a[:, ::-2, 1:3],
             "big": a.astype(">f4"), "zero": np.float64(0.5), "list": [1, 2]}
    write_state(tmp_path / "a", state)
    found, _ = read_state(tmp_path / "a")
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value)
    assert found["f"].flags.f_contiguous
    assert not found["f"].flags.c_contiguous
    assert all(found[name].flags.c_contiguous for name in state if name != "f")


def test_bfloat16_comes_back_where_ml_dtypes_is(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    state = {t: np.arange(-3, 4).astype(getattr(ml_dtypes, t))
             for t in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}
    write_state(tmp_path / "a", state)
    found, _ = read_state(tmp_path / "a")
    assert {name: bits(a) for name, a in found.items()} == {name: bits(a) for name, a in state.items()}


def test_it_is_a_safetensors_file(tmp_path):
    """Their reader opens ours: the layout is theirs, and nothing but the notes in the header is nagcore's."""
    safetensors = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    state = {t: (10 * rng.normal(size=(3, 5))).astype(t) for t in DTYPES if not t.startswith("complex")}
    write_state(tmp_path / "a.safetensors", state, {"step": 1})
    found = safetensors.load_file(tmp_path / "a.safetensors")
    assert {name: bits(a) for name, a in found.items()} == {name: bits(a) for name, a in state.items()}
    data = (tmp_path / "a.safetensors").read_bytes()
    assert int.from_bytes(data[:8], "little") % 8 == 0  # arrays are aligned to their elements


@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64", "PCG64DXSM"])
def test_generators_go_on(tmp_path, kind):
    rng = np.random.Generator(getattr(np.random, kind)(7))
    rng.normal(size=5)
    rng.integers(3, dtype=np.uint32)  # half a word is left over, which is part of the state
    write_state(tmp_path / "a", {}, {"rng": rng.bit_generator.state, "python": random.getstate()})
    want = rng.normal(size=9).tolist(), rng.integers(9, size=9, dtype=np.uint32).tolist(), random.random()
    metadata = read_metadata(tmp_path / "a")
    again = np.random.Generator(getattr(np.random, kind)())
    again.bit_generator.state = metadata["rng"]
    random.setstate(metadata["python"])
    got = again.normal(size=9).tolist(), again.integers(9, size=9, dtype=np.uint32).tolist(), random.random()
    assert got == want


# Damage ---------------------------------------------------------------------------------------------


def small(tmp_path):
    path = tmp_path / "small.safetensors"
    write_state(path, {"w": np.arange(5.0), "n": np.int8([1, 2, 3])}, {"step": 5, "metric": 0.25})
    return path, path.read_bytes()


def test_a_file_cut_off_at_any_length_is_noticed(tmp_path):
    path, data = small(tmp_path)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with pytest.raises(Damaged, match="cut off"):
            read_state(path)
        with pytest.raises(Damaged, match="cut off"):
            read_metadata(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(Damaged, match="cut off"):
        read_state(path)


def test_a_change_of_any_byte_is_noticed(tmp_path):
    path, data = small(tmp_path)
    want, padding = read_state(path), data.index(b"}  ") if b"}  " in data else len(data)
    for i in range(len(data)):
        for bit in (0x01, 0x80):
            path.write_bytes(data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :])
            try:
                found = read_state(path)
            except CheckpointError:
                continue
            # JSON has more than one spelling of the same: white space, and case of \u escapes.
            assert repr(found) == repr(want), (i, bit)
            assert i > padding or data[i : i + 1] in b' "\\u', (i, data[i : i + 1])


def test_other_versions_are_refused_by_name(tmp_path):
    path, data = small(tmp_path)
    path.write_bytes(data.replace(rb'{\"version\": 1', rb'{\"version\": 9'))
    with pytest.raises(CheckpointError, match="checkpoint format 9; this nagcore reads 1") as caught:
        read_state(path)
    assert not isinstance(caught.value, Damaged)  # going back to an older file would lose work


class Bomb:
    """Pickled, it leaves a file where it is loaded."""

    def __reduce__(self):
        return open, ("exploded", "w")


def pickles():
    yield "Python pickle", pickle.dumps({"w": Bomb()})
    for protocol in (2, 3, 4, 5):
        yield "Python pickle", pickle.dumps({"w": np.zeros(3), "b": Bomb()}, protocol)
    yield "no nagcore checkpoint", pickle.dumps([Bomb()], 0)
    stream = io.BytesIO()
    np.savez(stream, w=np.array([Bomb()], dtype=object))
    yield "zip archive", stream.getvalue()
    stream = io.BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object))
    yield "NumPy array", stream.getvalue()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:  # torch.save's
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    yield "zip archive", stream.getvalue()


@pytest.mark.parametrize(("match", "data"), list(pickles()))
def test_pickles_are_refused_and_never_run(tmp_path, monkeypatch, match, data):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run" / "checkpoint-000001-step-1.safetensors"
    path.parent.mkdir()
    path.write_bytes(data)
    checkpoint = Checkpoint(path.parent)
    for read in (lambda: read_state(path), lambda: Checkpoint.read(path), checkpoint.load_latest):
        with pytest.raises(CheckpointError, match=match):
            read()
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(("data", "match"), [
    (b"step,loss\n1,0.5\n2,0.3\n", "no nagcore checkpoint"), (bytes(100), "no nagcore checkpoint"),
    (b"\x02\0\0\0\0\0\0\0{}", "another program"), (b"\x09\0\0\0\0\0\0\0{[[[[[[[[", "cannot be read"),
    (b"\xff" * 8 + b"{}", "cut off"),
])  # fmt: skip
def test_other_files_are_refused(tmp_path, data, match):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(CheckpointError, match=match):
        read_state(tmp_path / "a")
    write_state(tmp_path / "b", {"w": np.ones(2)})
    with pytest.raises(CheckpointError, match=r"not by Checkpoint\.save"):
        Checkpoint.read(tmp_path / "b")


def test_headers_that_lie_about_the_arrays_are_refused(tmp_path):
    """Checksums that fit, and arrays that overlap, leave gaps, or are of no known kind."""
    path = tmp_path / "small.safetensors"
    write_state(path, {"w": np.arange(5.0), "n": np.int8([1, 2, 3]), "e": np.zeros((0, 2))}, {"step": 5})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for name, key, value in [
        ("w", "data_offsets", [0, 39]), ("n", "data_offsets", [0, 3]), ("w", "shape", [6]),
        ("w", "dtype", "F32"), ("w", "dtype", "Q9"), ("w", "shape", [-5]),
        ("w", "shape", None), ("e", "shape", [2**62, 0, 4]), ("e", "shape", [0] * 70),
    ]:  # fmt: skip
        header = json.loads(data[8 : 8 + length])
        header[name][key] = value
        header["__metadata__"]["crc32"] = str(state_file._header_sum(header))
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
        with pytest.raises(Damaged):
            read_state(path)


JUNK = st.one_of(st.none(), st.booleans(), st.integers(-3, 10**12), st.floats(), st.text(max_size=3),
                 st.just([]), st.just({}), st.just([5.0]), st.just([2**62, 4]))  # fmt: skip


@settings(max_examples=200)
@given(data=st.data())
def test_no_header_makes_it_fail_in_another_way(tmp_path_factory, data):
    """Any part of either JSON text replaced by anything, and sums that fit: CheckpointError, or read."""
    folder = tmp_path_factory.mktemp("s")
    write_state(folder / "a", {"w": np.arange(5.0), "c": np.ones(2, complex)}, {"t": (1, np.arange(3))})
    raw = (folder / "a").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    notes = json.loads(header["__metadata__"]["nagcore_checkpoint"])

    def places(node, path=()):
        for key in node if isinstance(node, dict) else range(len(node)):
            yield (node, key)
            if isinstance(node[key], (dict, list)):
                yield from places(node[key], (*path, key))

    root = data.draw(st.sampled_from([header, notes]))
    node, key = data.draw(st.sampled_from(list(places(root))))
    if data.draw(st.booleans()):
        node[key] = data.draw(JUNK)
    else:
        del node[key]
    if isinstance(header.get("__metadata__"), dict):
        if root is notes or "nagcore_checkpoint" in header["__metadata__"]:
            header["__metadata__"].setdefault("nagcore_checkpoint", "")
        if root is notes:
            header["__metadata__"]["nagcore_checkpoint"] = json.dumps(notes)
        try:
            header["__metadata__"]["crc32"] = str(state_file._header_sum(header))
        except KeyError:
            pass
    text = json.dumps(header).encode()
    (folder / "b").write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    for read in (read_state, read_metadata):
        try:
            read(folder / "b")
        except CheckpointError:
            pass


# What cannot be written -----------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "metadata", "error"), [
    ({"w": np.array([object()])}, {}, "only pickle"), ({"w": np.array(["a"])}, {}, "dtype"),
    ({"w": np.zeros(2, "datetime64[s]")}, {}, "dtype"), ({"w": np.zeros(2, [("a", int)])}, {}, "dtype"),
    ({3: np.zeros(2)}, {}, "key 3"), ({"__metadata__": np.zeros(2)}, {}, "__metadata__"),
    ({"w": np.zeros(2)}, {"f": print}, "only pickle"), ({"w": np.zeros(2)}, {"a": {1: 2}}, "key 1"),
    ({"w": np.zeros(2)}, {"a": [{"$tuple": 2}]}, "'$'"), ({"w": {"nested": np.zeros(2)}}, {}, "objects"),
    ({"w": np.zeros(2)}, {"a": {1, 2}}, "only pickle"), ({"w": np.zeros(2)}, {"a": b"x"}, "only pickle"),
])  # fmt: skip
def test_what_only_pickle_can_store_is_refused_and_nothing_is_written(tmp_path, state, metadata, error):
    checkpoint = Checkpoint(tmp_path)
    path = checkpoint.save(1, {"w": np.ones(2)})
    with pytest.raises(TypeError, match=error.replace("$", r"\$")):
        checkpoint.save(2, state, metadata=metadata)
    assert checkpoint.paths == [path]
    assert os.listdir(tmp_path) == [path.name]


def test_foreign_arrays_and_large_metadata_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="Put it into the state"):
        write_state(tmp_path / "a", {}, {"w": np.zeros(100_001)})
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"detach\(\)\.numpy\(\)"):
        write_state(tmp_path / "a", {"w": torch.zeros(2, requires_grad=True)})
    half = torch.ones(2, dtype=torch.bfloat16).view(torch.uint16)
    write_state(tmp_path / "a", {"w": torch.ones(2), "b": half})
    assert read_state(tmp_path / "a")[0]["w"].tolist() == [1.0, 1.0]


# What a folder keeps --------------------------------------------------------------------------------


def steps(checkpoint):
    return [Checkpoint.read(path).step for path in checkpoint.paths]


@settings(max_examples=40)
@given(metrics=st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=12),
       keep=st.integers(1, 4), every=st.integers(1, 4), mode=st.sampled_from(["min", "max"]))  # fmt: skip
def test_a_folder_keeps_the_newest_and_the_best(tmp_path_factory, metrics, keep, every, mode):
    folder = tmp_path_factory.mktemp("run")
    checkpoint, written, best = Checkpoint(folder, every=every, keep=keep, mode=mode), [], None
    for step, metric in enumerate(metrics, start=1):
        known = metric is not None and not math.isnan(metric)
        better = known and (best is None or (metric < best[1] if mode == "min" else metric > best[1]))
        path = checkpoint.update(step, lambda step=step: {"w": np.array([step])}, metric=metric)
        assert (path is not None) == (step % every == 0 or better)
        if path:
            written.append(step)
        if better:
            best = step, metric
    want = set(written[-keep:]) | ({best[0]} if best else set())
    assert steps(checkpoint) == sorted(want)
    again = Checkpoint(folder, mode=mode)
    latest, found = again.load_latest(), again.load_best()
    assert (latest and latest.step) == (written[-1] if written else None)
    assert (found and found.step) == (best and best[0])
    assert (found and found.metric) == (best and best[1])


def test_state_is_made_only_when_it_is_written(tmp_path):
    checkpoint, made = Checkpoint(tmp_path, every=10), []

    def state():
        made.append(1)
        return {"w": np.ones(1)}

    for step in range(1, 31):
        checkpoint.update(step, state, metric=1.0)
    assert len(made) == 4  # the first, which is the best, and three that are due


def test_the_newest_is_the_one_written_last_whatever_its_step(tmp_path):
    """Going back to step 10 and on from there makes the files of the other branch old."""
    checkpoint = Checkpoint(tmp_path, keep=2)
    for step in (10, 20, 30):
        checkpoint.save(step, {"w": np.array(step)})
    checkpoint.save(11, {"w": np.array(11)})
    assert steps(checkpoint) == [30, 11]
    assert checkpoint.load_latest().step == 11
    for i in range(12):  # and numbers sort as numbers
        checkpoint.save(i, {"w": np.array(i)})
    assert checkpoint.load_latest().step == 11


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    mine = ["notes.txt", "checkpoint-1-step-2.safetensors", ".checkpoint-x.safetensors.tmp", "m.safetensors"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    checkpoint = Checkpoint(tmp_path, keep=1)
    for step in range(5):
        checkpoint.save(step, {})
    assert sorted(os.listdir(tmp_path)) == sorted([*mine, checkpoint.paths[0].name])
    assert steps(checkpoint) == [4]


def test_a_damaged_newest_is_passed_over_with_a_warning(tmp_path):
    checkpoint = Checkpoint(tmp_path, keep=5)
    paths = [checkpoint.save(step, {"w": np.ones(50)}, metric=-step) for step in (1, 2, 3, 4)]
    data = bytearray(paths[3].read_bytes())
    data[-1] ^= 1
    paths[3].write_bytes(data)
    os.truncate(paths[2], 700)
    with pytest.warns(RuntimeWarning, match="passed over") as caught:
        assert Checkpoint(tmp_path).load_latest().step == 2
    assert len(caught) == 2
    with pytest.warns(RuntimeWarning, match="passed over"):
        assert Checkpoint(tmp_path).load_best().step == 2
    os.truncate(paths[1], 0)
    os.truncate(paths[0], 20)
    with pytest.warns(RuntimeWarning, match="passed over"), pytest.raises(CheckpointError, match="damaged"):
        Checkpoint(tmp_path).load_latest()
    after = Checkpoint(tmp_path)
    after.save(9, {})
    assert after.load_latest().step == 9
    with pytest.warns(RuntimeWarning, match="passed over"), pytest.raises(CheckpointError, match="damaged"):
        after.load_best()  # step 4's bytes are wrong, and of the others nothing can be known
    assert Checkpoint(tmp_path / "none").load_latest() is None
    assert Checkpoint(tmp_path / "none").load_best() is None


@pytest.mark.parametrize("bad", [
    lambda c: Checkpoint("x", every=0), lambda c: Checkpoint("x", keep=0),
    lambda c: Checkpoint("x", mode="best"), lambda c: c.save(-1, {}), lambda c: c.save(1.5, {}),
    lambda c: c.update(-1, {}),
])  # fmt: skip
def test_bad_arguments_are_one_clear_error(tmp_path, bad):
    with pytest.raises(ValueError, match="Use "):
        bad(Checkpoint(tmp_path))
    with pytest.raises(TypeError, match="Use metric"):
        Checkpoint(tmp_path).save(1, {}, metric="low")
    assert os.listdir(tmp_path) == []


def test_minimize_is_taken_up_where_it_was(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 8)) * np.logspace(0, 2, 8)
    y = (X[:, 0] + rng.normal(size=300) > 0).astype(float)
    objective = nagcore.Objective(X, y, loss="logistic", l2=1e-6)
    checkpoint, seen = Checkpoint(tmp_path, every=2, keep=2), []
    watch = [checkpoint, lambda s: seen.append(s.w), lambda s: s.n_iter == 7]
    nagcore.minimize(objective, solver="fista", tol=1e-14, callbacks=watch)
    ended = checkpoint.load_latest()
    assert ended.step == 7  # which is not due: the run has ended there
    assert ended.metric == min(s.metric for s in map(checkpoint.read, checkpoint.paths))
    saved = checkpoint.read(checkpoint.paths[-2])
    assert saved.step == 6
    np.testing.assert_array_equal(saved.state["w"], seen[5])
    assert saved.metadata["n_iter"] == 6
    assert objective.value_and_grad(saved.state["w"])[0] == pytest.approx(saved.metric, rel=1e-12)
    again = Checkpoint(tmp_path, every=2)
    found = nagcore.minimize(
        objective, saved.state["w"], solver="fista", tol=1e-10, callbacks=[again]
    )
    assert found.converged
    assert found.value <= saved.metric
    assert checkpoint.load_latest().step > 7  # the steps go on counting
