"""One state as one file in the safetensors layout: a JSON header, then the arrays' bytes. No pickle.

The layout is Hugging Face's: eight bytes with the header's length, the header, the arrays in C order
and little endian without gaps. NumPy is enough to write and read it, any safetensors reader opens it,
and its length alone tells a file that was cut off. nagcore adds, as text in the header's
`__metadata__`, its version, the metadata and a CRC-32 of every array and of the header. Why:
docs/decisions/0004-checkpoints-are-safetensors.md.
"""

from __future__ import annotations

import json
import math
import os
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from nagcore._extras import require
from nagcore._files import atomic_write

__all__ = ["CheckpointError", "Damaged", "read_metadata", "read_state", "write_state"]

VERSION = 1
_MOST_HEADER = 100_000_000  # bytes; what readers of the layout accept
_MOST_ARRAY = 100_000  # elements of an array in the metadata, which is text

_CODES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32",
    "int32": "I32", "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64",
    "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_PLAIN = [name for name in _CODES if not name.startswith(("bfloat", "float8"))]  # NumPy's own
_NAMES = {code: name for name, code in _CODES.items()}
# What JSON of another form than ours can meet on its way.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
# The layout has no complex numbers that all readers know: a last axis of length two stands for them.
_PARTS = {"complex64": "float32", "complex128": "float64"}


class CheckpointError(ValueError):
    """A file is no checkpoint that nagcore can read; the message says why and what to do.

    >>> issubclass(CheckpointError, ValueError)
    True
    """


class Damaged(CheckpointError):
    """A checkpoint that was whole once: cut off, or changed after it was written.

    >>> issubclass(Damaged, CheckpointError)
    True
    """


def write_state(
    path: str | os.PathLike[str], state: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write arrays and metadata as one file, whole or not at all.

    Parameters
    ----------
    path : path
        In a folder that exists. What stands there is replaced once the new file is on the disk.
    state : mapping of str to array
        Numbers and booleans of any shape and memory order; each is read twice (checksum, then file),
        and only arrays that are not contiguous or not little endian are copied, one at a time.
    metadata : mapping of str to value, optional
        None, booleans, numbers, text, lists, tuples, dicts with text keys, and small arrays, nested as
        you like: the states of `random`, of NumPy's generators and of nagcore's classes among them.

    Raises
    ------
    TypeError, ValueError
        What cannot be written without pickle, by name; nothing is written then.
    OSError
        The disk is full, say; a file that stood there still does.

    Examples
    --------
    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "a.safetensors")
    >>> write_state(path, {"w": np.arange(3.0)}, {"step": 7})
    >>> state, metadata = read_state(path)
    >>> state["w"].tolist(), metadata
    ([0.0, 1.0, 2.0], {'step': 7})
    """
    arrays = {_name(name): _array(name, value) for name, value in state.items()}
    notes: dict[str, Any] = {
        "version": VERSION,
        "metadata": _encode(dict(metadata or {}), "metadata"),
        "order": list(arrays),
        "fortran": [name for name, a in arrays.items() if a.flags.f_contiguous and not a.flags.c_contiguous],
        "complex": {name: a.dtype.name for name, a in arrays.items() if a.dtype.name in _PARTS},
    }
    # Wide types first, so that every array starts at a multiple of its own width.
    names = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    header: dict[str, Any] = {}
    sums, end = {}, 0
    for name in names:
        data = _bytes(arrays[name])
        sums[name] = zlib.crc32(data)
        header[name] = {**_layout(arrays[name]), "data_offsets": [end, end + len(data)]}
        end += len(data)
    notes["crc32"] = sums
    header["__metadata__"] = {"nagcore_checkpoint": json.dumps(notes)}
    header["__metadata__"]["crc32"] = str(_header_sum(header))
    text = json.dumps(header).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > _MOST_HEADER:
        raise ValueError(f"The metadata makes a header of {len(text)} bytes; the layout allows "
                         f"{_MOST_HEADER}. Put large things into the state, as arrays.")
    with atomic_write(path) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            stream.write(_bytes(arrays[name]))


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_state` wrote: arrays with the same bits, dtypes and shapes, and the metadata.

    Memory is in C order, or Fortran's where it was, so that products of matrices keep their bits too.
    Raises CheckpointError for a file that is cut off, changed, of another version, a pickle, or of
    another program, and OSError where it cannot be read.

    >>> read_state(__file__)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
        ...
    CheckpointError: … is no nagcore checkpoint
    """
    path = Path(path)
    with open(path, "rb") as stream:
        header, notes = _header(path, stream)
        found = {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            try:
                a = np.empty(entry["shape"], _dtype(entry["dtype"]))
            except ValueError as error:  # no element, and more dimensions than NumPy has
                raise Damaged(f"{path} is damaged: {name!r} cannot be made ({error}).") from None
            data = a.reshape(-1).view(np.uint8).data
            if stream.readinto(data) != len(data):
                raise Damaged(f"{path} was cut off while it was read.")
            if zlib.crc32(data) != notes["crc32"].get(name):
                raise Damaged(f"{path} is damaged: the bytes of {name!r} are not those that were written. "
                              "Take an older checkpoint.")
            if name in notes["complex"]:
                a = a.view(notes["complex"][name])[..., 0]
            found[name] = np.asfortranarray(a) if name in notes["fortran"] else a
    return {name: found[name] for name in notes["order"]}, notes["metadata"]


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata alone, from the header; errors as in `read_state`, checksums of arrays apart.

    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "a.safetensors")
    >>> write_state(path, {}, {"rng": np.random.default_rng(0).bit_generator.state})
    >>> read_metadata(path)["rng"]["bit_generator"]
    'PCG64'
    """
    path = Path(path)
    with open(path, "rb") as stream:
        return _header(path, stream)[1]["metadata"]


# Arrays ---------------------------------------------------------------------------------------------


def _name(name: Any) -> str:
    if not isinstance(name, str) or name == "__metadata__":
        raise TypeError(f"The state has the key {name!r}; nagcore takes text other than '__metadata__'. "
                        "Use names like 'layer1.weight'.")
    return name


def _array(name: str, value: Any) -> np.ndarray:
    try:
        a = np.asarray(value)
    except Exception as error:  # what a foreign array raises here is its own affair
        raise TypeError(f"The state's {name!r} is {type(value).__name__}, which NumPy does not take "
                        f"({error}). Use value.detach().numpy(), with .view(torch.uint16) before it for "
                        "bfloat16.") from None
    if a.dtype == object:
        raise TypeError(f"The state's {name!r} is an array of Python objects, which only pickle can store, "
                        "and nagcore neither writes nor reads pickle. Use arrays of numbers, and metadata "
                        "for the rest.")
    if a.dtype.name not in _CODES and a.dtype.name not in _PARTS:
        raise TypeError(f"The state's {name!r} has dtype {a.dtype}; a checkpoint holds "
                        f"{', '.join([*_CODES, *_PARTS])}. Use value.astype(np.float64), or put text "
                        "into the metadata.")
    return a


def _bytes(a: np.ndarray) -> memoryview:
    """The array's elements in C order and little endian, without a copy where they lie so."""
    if a.dtype.byteorder == ">" or (a.dtype.byteorder == "=" and sys.byteorder == "big"):
        a = a.astype(a.dtype.newbyteorder("<"))
    return np.ascontiguousarray(a).reshape(-1).view(np.uint8).data


def _layout(a: np.ndarray) -> dict[str, Any]:
    if a.dtype.name in _PARTS:
        return {"dtype": _CODES[_PARTS[a.dtype.name]], "shape": [*a.shape, 2]}
    return {"dtype": _CODES[a.dtype.name], "shape": list(a.shape)}


def _dtype(code: str) -> np.dtype[Any]:
    name = _NAMES[code]
    if name not in _PLAIN:
        return np.dtype(getattr(require("ml_dtypes", "all", f"reading {name} arrays"), name))
    return np.dtype(name).newbyteorder("<")


# The header -----------------------------------------------------------------------------------------


def _header_sum(header: Mapping[str, Any]) -> int:
    """CRC-32 of the header without its own sum, in one spelling."""
    rest = {name: entry for name, entry in header.items() if name != "__metadata__"}
    text = json.dumps([rest, header["__metadata__"]["nagcore_checkpoint"]], sort_keys=True)
    return zlib.crc32(text.encode("ascii"))


def _header(path: Path, stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays' entries and nagcore's notes, both checked; the stream then stands at the arrays."""
    size = os.fstat(stream.fileno()).st_size
    begin = stream.read(9)
    _refuse_others(path, begin)
    length = int.from_bytes(begin[:8], "little")
    if size < 9 or length > size - 8:
        raise Damaged(f"{path} is cut off: {size} bytes, and its header alone takes "
                      f"{8 + length if size >= 8 else 'more'}. Take an older checkpoint.")
    if length > _MOST_HEADER:
        raise CheckpointError(f"{path} is no nagcore checkpoint: its header would take {length} bytes. "
                              "Name a file that nagcore.callbacks.Checkpoint wrote.")
    stream.seek(8)
    try:
        header = json.loads(stream.read(length))
        more = header.pop("__metadata__", {})
        if "nagcore_checkpoint" not in more:
            raise CheckpointError(f"{path} is a safetensors file of another program. "
                                  "Read it with safetensors.numpy.load_file.")
        notes = json.loads(more["nagcore_checkpoint"])
        # Before the sum, which another version may take differently.
        if notes["version"] != VERSION:
            raise CheckpointError(f"{path} has checkpoint format {notes['version']}; this nagcore reads "
                                  f"{VERSION}. Read it with the version of nagcore that wrote it.")
        if str(_header_sum({**header, "__metadata__": more})) != more["crc32"]:
            raise Damaged(f"{path} is damaged: its header is not the one that was written. "
                          "Take an older checkpoint.")
        end = 0
        for entry in sorted(header.values(), key=lambda entry: entry["data_offsets"]):
            begun, end_ = entry["data_offsets"]
            if begun != end or end_ - begun != _length(entry):
                raise ValueError("its arrays do not follow each other")
            end = end_
        if sorted(notes["order"]) != sorted(header) or set(notes["crc32"]) != set(header):
            raise ValueError("its arrays are not those that it lists")
        for name, kind in notes["complex"].items():
            if _CODES[_PARTS[kind]] != header[name]["dtype"] or header[name]["shape"][-1] != 2:
                raise ValueError(f"{name!r} is not made of pairs")
        notes["fortran"] = set(notes["fortran"])
        notes["metadata"] = _decode(notes["metadata"])
    except CheckpointError:
        raise
    except _UNREADABLE as error:
        raise Damaged(f"{path} is damaged: its header cannot be read ({type(error).__name__}: {error}). "
                      "Take an older checkpoint.") from None
    if size != 8 + length + end:
        raise Damaged(f"{path} is cut off: {size} of {8 + length + end} bytes. Take an older checkpoint.")
    return header, notes


def _length(entry: Mapping[str, Any]) -> int:
    code = entry["dtype"]
    if any(type(n) is not int or n < 0 for n in entry["shape"]):
        raise ValueError(f"an array has the shape {entry['shape']}")
    width = 2 if code == "BF16" else 1 if code.startswith(("F8", "BOOL")) else np.dtype(_NAMES[code]).itemsize
    return width * math.prod(entry["shape"])


def _refuse_others(path: Path, begin: bytes) -> None:
    """What is plainly something else, before its first bytes are taken for a length."""
    refusal = ("nagcore reads no pickle, because loading one runs whatever code is in it. Load it where you "
               "trust it, and write its arrays with nagcore.callbacks.Checkpoint.")
    # As a length 80 02 … 80 05 are 640 to 1408, with zeros behind; a pickle has an opcode there.
    if begin[:1] == b"\x80" and begin[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and any(begin[2:3]):
        raise CheckpointError(f"{path} is a Python pickle. {refusal}")
    if begin[:4] == b"PK\x03\x04":
        raise CheckpointError(f"{path} is a zip archive, as torch.save and numpy.savez write, which may hold "
                              f"pickle. {refusal}")
    if begin[:6] == b"\x93NUMPY":
        raise CheckpointError(f"{path} is a NumPy array, which may hold pickle. {refusal}")
    if len(begin) == 9 and begin[8:9] != b"{":
        raise CheckpointError(f"{path} is no nagcore checkpoint: it does not begin with a safetensors "
                              "header. Name a file that nagcore.callbacks.Checkpoint wrote.")


# Metadata -------------------------------------------------------------------------------------------


def _encode(value: Any, where: str) -> Any:
    """As JSON, with $tuple and $array for what JSON does not have; NaN and infinity as Python spells them."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        return value.item()
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key.startswith("$"):
                raise TypeError(f"{where} has the key {key!r}; nagcore takes text that does not begin with "
                                "'$', because JSON would change any other. Use str(key).")
        return {key: _encode(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        if value.size > _MOST_ARRAY:
            raise ValueError(f"{where} has {value.size} elements; metadata is text, and takes "
                             f"{_MOST_ARRAY}. Put it into the state.")
        return {"$array": value.ravel().tolist(), "dtype": value.dtype.name, "shape": list(value.shape)}
    for kind in (bool, int, float, str):  # subclasses, as enumerations have
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"{where} is {type(value).__name__}, which only pickle can store, and nagcore neither "
                    "writes nor reads pickle. Use numbers, text, lists, dicts and small arrays, or put "
                    "arrays into the state.")


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if isinstance(value, dict):
        if "$tuple" in value:
            return tuple(_decode(item) for item in value["$tuple"])
        if "$array" in value:
            # From a list of ours: NumPy parses a text that it does not know as if it were Python.
            if value["dtype"] not in _PLAIN:
                raise ValueError(f"an array of dtype {value['dtype']!r}")
            return np.array(value["$array"], dtype=value["dtype"]).reshape(value["shape"])
        return {key: _decode(item) for key, item in value.items()}
    return value
