"""Pickled arrays of other people, read without running what a pickle can hold: nothing but numbers comes out.

A pickle is a program. Here it may only use a short list of instructions and name the few functions by which numpy
rebuilds an array; each of those names is answered by a stand-in of this file, so that not even numpy's own code runs on
what the file says.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsol_core.types import DataError

LARGEST = 256 * 2**20  # bytes of a file
_NUMBERS = 20_000_000  # in nested lists, counted with repetitions
_MEMO = 1_000_000  # places of the pickle's own memory
_DEPTH = 8  # of nested lists; an array has no more axes here
_KINDS = "biuf"  # bool, int, unsigned, float
_NPY = b"\x93NUMPY"

_INSTRUCTIONS = frozenset(
    "PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE LIST EMPTY_LIST "
    "APPEND APPENDS NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 PUT "
    "BINPUT LONG_BINPUT GET BINGET LONG_BINGET MEMOIZE".split()
)


def load_array(path: Path) -> NDArray[Any]:
    """Read a pickled array, a pickled list of lists of numbers, or a .npy file.

    Returns:
        An array of bool, integers or floats, as the file holds it.

    Raises:
        DataError: the file is missing, damaged, too large, or holds anything else than numbers.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} has {path.stat().st_size} bytes; expected an array of at most {LARGEST}")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected a pickled array") from error
    try:
        if data.startswith(_NPY):
            return _checked(np.load(io.BytesIO(data), allow_pickle=False))
        _check_instructions(data)
        return _array(_Unpickler(io.BytesIO(data), encoding="latin1").load())
    except _Refused as error:
        raise DataError(f"{path} {error}; expected a pickled array of numbers, so it is not read") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
        raise DataError(f"{path} is no pickled array ({type(error).__name__}: {error}); replace the file") from error


class _Refused(ValueError):
    """The pickle asks for something that is no array."""


def _check_instructions(data: bytes) -> None:
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name not in _INSTRUCTIONS:
            raise _Refused(f"holds the pickle instruction {instruction.name}")
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= _MEMO:
            raise _Refused(f"remembers a value at place {argument}")


class _Kind:
    """Stands in for a `numpy.dtype`."""

    __slots__ = ("value",)

    def __init__(self, *words: Any) -> None:
        text = words[0] if words else None
        if not isinstance(text, str) or len(text) > 8 or np.dtype(text).kind not in _KINDS:
            raise _Refused(f"holds an array of the kind {text!r}")
        self.value = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise _Refused(f"holds numbers in the byte order {order!r}")
        self.value = self.value.newbyteorder(order)


class _Array:
    """Stands in for a `numpy.ndarray` that the pickle fills later."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.value = _filled(shape, kind, "F" if fortran else "C", raw)


class _Name:
    """Stands in for a function that the pickle may name; it cannot be changed by the pickle."""

    __slots__ = ("_work",)

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work

    def __call__(self, *words: Any) -> Any:
        return self._work(*words)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("tries to change a function")


def _filled(shape: Any, kind: Any, order: Any, raw: Any) -> NDArray[Any]:
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    good = isinstance(kind, _Kind) and isinstance(data, bytes | bytearray) and isinstance(shape, tuple)
    if not good or order not in ("C", "F") or not all(type(n) is int and n >= 0 for n in shape):
        raise _Refused("holds an array that numpy did not write")
    if math.prod(shape) * kind.value.itemsize != len(data):
        raise _Refused(f"holds {len(data)} bytes for an array {list(shape)} of {kind.value}")
    return np.frombuffer(data, kind.value).reshape(shape, order=order).astype(kind.value.newbyteorder("="))


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(kind: Any, raw: Any) -> Any:
    return _filled((), kind, "C", raw).item()


def _frombuffer(raw: Any, kind: Any, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.value = _filled(shape, kind, order, raw)
    return made


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused(f"encodes text as {encoding!r}")
    return text.encode("latin1")


def _never(*_: Any) -> Any:
    raise _Refused("calls numpy.ndarray itself")


_MAKERS: dict[tuple[str, str], Callable[..., Any]] = {("numpy", "dtype"): _Kind, ("numpy", "ndarray"): _never}
_MAKERS[("_codecs", "encode")] = _encode
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _MAKERS[(f"{_core}.multiarray", "_reconstruct")] = _reconstruct
    _MAKERS[(f"{_core}.multiarray", "scalar")] = _scalar
    _MAKERS[(f"{_core}.numeric", "_frombuffer")] = _frombuffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        work = _MAKERS.get((module, name))
        if work is None:
            raise _Refused(f"asks for {module}.{name}")
        return _Name(work)


def _array(value: Any) -> NDArray[Any]:
    left = [_NUMBERS]
    return _checked(np.asarray(_plain(value, left, 0)))


def _plain(value: Any, left: list[int], depth: int) -> Any:
    """Turn what the pickle built into arrays, lists and numbers; refuse what repeats itself without end."""
    left[0] -= 1
    if left[0] < 0 or depth > _DEPTH:
        raise _Refused(f"holds lists of more than {_NUMBERS} numbers or {_DEPTH} levels")
    if isinstance(value, _Array):
        left[0] -= value.value.size if depth else 0
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(one, left, depth + 1) for one in value]
    if isinstance(value, bool | int | float):
        return value
    raise _Refused(f"holds a {type(value).__name__.lstrip('_')}")


def _checked(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in _KINDS:
        raise _Refused(f"holds an array of {array.dtype}")
    return array
