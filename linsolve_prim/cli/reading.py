"""Reading systems from files, and writing solutions to them. NumPy and SciPy only."""

from __future__ import annotations

import inspect
import os
import zipfile
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import scipy.io
import scipy.sparse as sp

Matrix: TypeAlias = np.ndarray | sp.csr_array

_MTX = (".mtx", ".mtx.gz", ".mtx.bz2")
_CSR_NAMES = {"data", "indices", "indptr", "shape"}
#: From SciPy 1.15 on, a reader is told which kind of sparse matrix it should return.
_MMREAD: dict[str, Any] = (
    {"spmatrix": False} if "spmatrix" in inspect.signature(scipy.io.mmread).parameters else {}
)
#: What the readers raise for files that are not what their names say.
_UNREADABLE = (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile)


class BadInput(Exception):
    """Input that cannot be used. Its message is one line: argument, value, rule, remedy."""


class System(NamedTuple):
    """A matrix, a right-hand side of shape `(n,)` or `(n, k)`, and where the latter is from."""

    matrix: Matrix
    rhs: np.ndarray
    rhs_from: str


def read_system(matrix_path: str, rhs_path: str | None) -> System:
    """The system of one or two files; b is the second's, else the first's own `b`, else A·1."""
    matrix, own_rhs = read_matrix(matrix_path)
    if rhs_path is not None:
        rhs, rhs_from = _read_rhs(rhs_path), rhs_path
    elif own_rhs is not None:
        rhs, rhs_from = own_rhs, f"'b' in {matrix_path}"
    else:
        rhs, rhs_from = matrix @ np.ones(matrix.shape[1], matrix.dtype), "A·1 (none was given)"
    if rhs.ndim not in (1, 2) or rhs.shape[0] != matrix.shape[0] or rhs.size == 0:
        raise BadInput(
            f"b: {rhs_from} has shape {rhs.shape}, but A ({matrix_path}) has {matrix.shape[0]} "
            f"rows; b must have shape ({matrix.shape[0]},) or ({matrix.shape[0]}, k). Pass the "
            "right-hand side that belongs to this matrix, or none to use A·1."
        )
    return System(matrix, _as_numbers(rhs, "b", rhs_from), rhs_from)


def read_matrix(path: str) -> tuple[Matrix, np.ndarray | None]:
    """The matrix in a file, dense or CSR as it is stored, and the file's own `b` if it has one."""
    content, rhs = _read(path, "A"), None
    if isinstance(content, dict):
        content, rhs = _from_npz(content, path)
    if content.ndim != 2 or 0 in content.shape:
        raise BadInput(
            f"A: {path} holds an array of shape {content.shape}; a matrix (rows, columns) with at "
            "least one entry is needed. Save it with two axes."
        )
    return _as_numbers(content, "A", path), rhs


def dense(matrix: Matrix) -> np.ndarray:
    """The matrix as a NumPy array."""
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def write_vector(path: str, x: np.ndarray) -> None:
    """Write a solution as `.npy`, or as `.mtx` (a vector becomes one column)."""
    try:
        if path.endswith(".npy"):
            np.save(path, x, allow_pickle=False)
        else:
            with open(path, "wb") as file:
                scipy.io.mmwrite(file, x.reshape(x.shape[0], -1), precision=17)
    except OSError as error:
        raise BadInput(f"--out: {path} cannot be written: {error.strerror}.") from None


def check_out(path: str | None, endings: Iterable[str]) -> None:
    """Refuse an output path before any work is done for it."""
    if path is None:
        return
    if not path.endswith(tuple(endings)):
        raise BadInput(f"--out: must end in {' or '.join(endings)}; got {path}.")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise BadInput(f"--out: the folder {folder} does not exist. Make it, or name another.")


# ---- one format after another --------------------------------------------------------------------


def _read(path: str, argument: str) -> Any:
    """The array in a file, or a dictionary of the arrays in an `.npz`."""
    if not os.path.isfile(path):
        raise BadInput(f"{argument}: there is no file {path}. Check the path.")
    try:
        if path.endswith(_MTX):
            content = scipy.io.mmread(path, **_MMREAD)
            return sp.csr_array(content) if sp.issparse(content) else content
        if path.endswith(".npy"):
            return np.load(path, allow_pickle=False)
        if path.endswith(".npz"):
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except _UNREADABLE as error:
        raise BadInput(
            f"{argument}: {path} cannot be read as {path.rsplit('.', 1)[1]}: "
            f"{str(error).rstrip('.')}. Check that it is whole, and that its name says what it is."
        ) from None
    raise BadInput(
        f"{argument}: must be a .mtx (or .mtx.gz, .mtx.bz2), .npy or .npz file; got {path}. "
        "Convert it, e.g. with scipy.io.mmwrite."
    )


def _from_npz(arrays: dict[str, np.ndarray], path: str) -> tuple[Matrix, np.ndarray | None]:
    """A dense `A`, CSR arrays, or what `scipy.sparse.save_npz` wrote; with `b` if it is there."""
    rhs = arrays.get("b")
    if "A" in arrays:
        return arrays["A"], rhs
    try:
        if "format" in arrays and str(arrays["format"].astype(str)) != "csr":
            return sp.csr_array(sp.load_npz(path)), rhs
        if arrays.keys() >= _CSR_NAMES:
            shape = tuple(int(size) for size in arrays["shape"])
            parts = (arrays["data"], arrays["indices"], arrays["indptr"])
            matrix = sp.csr_array(parts, shape=shape)
            matrix.check_format(full_check=True)
            matrix.sum_duplicates()
            return matrix, rhs
    except _UNREADABLE as error:
        raise BadInput(
            f"A: {path} does not hold a valid sparse matrix: {str(error).rstrip('.')}. Write it "
            "again with scipy.sparse.save_npz."
        ) from None
    raise BadInput(
        f"A: {path} holds {', '.join(sorted(arrays)) or 'nothing'}; an .npz needs 'A', or the CSR "
        "arrays 'data', 'indices', 'indptr' and 'shape'. Write it with np.savez(path, A=A, b=b) or "
        "scipy.sparse.save_npz(path, A)."
    )


def _read_rhs(path: str) -> np.ndarray:
    content = _read(path, "b")
    if isinstance(content, dict):
        if "b" not in content:
            raise BadInput(
                f"b: {path} holds {', '.join(sorted(content)) or 'nothing'}, but no array 'b'. "
                "Write it with np.savez(path, b=b), or pass an .npy."
            )
        content = content["b"]
    if sp.issparse(content):
        content = content.toarray()
    one_column = content.ndim == 2 and content.shape[1] == 1
    return content[:, 0] if path.endswith(_MTX) and one_column else content


def _as_numbers(x: Matrix, argument: str, source: str) -> Matrix:
    """The same in float64 or complex128, whatever kind of number the file holds."""
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        raise BadInput(f"{argument}: must hold numbers; {source} holds {x.dtype}. Save numbers.")
    return x.astype(np.complex128 if np.issubdtype(x.dtype, np.complexfloating) else np.float64)
