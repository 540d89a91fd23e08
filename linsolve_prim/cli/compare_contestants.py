"""Which solvers and preconditioners fit a matrix, and in which order they are tried."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import linsolve_prim as lp

from ..auto import MATRIX_FREE_SIZE
from .compare_rows import Row
from .reading import BadInput, Matrix, dense

#: Below this share of nonzeros a matrix that was stored dense is tried as a sparse one, too.
_SPARSE = 0.25
#: Up to so many unknowns a dense factorization takes less time than the compilation of a Krylov method.
_SMALL = 500
#: Solvers for dense matrices; all others take sparse ones as well.
_DENSE = ("LU", "Cholesky", "QR", "SVD", "IterativeRefinement")
#: Iterative methods in the order in which they are tried: those that users take first.
_METHODS = [
    "CG", "MINRES", "GMRES", "BiCGStab", "IDR", "FCG", "CGAdaptive", "LGMRES", "FGMRES", "GCROT",
    "MINRESQLP", "SYMMLQ", "TFQMR", "QMR", "CGS", "BiCG", "Chebyshev", "Richardson", "LSMR", "LSQR",
    "CGLS", "CRAIG", "Normal",
]  # fmt: skip
#: The methods with which every preconditioner is tried before other methods are.
_MAIN = {"definite": ("CG",), "general": ("GMRES", "BiCGStab", "IDR")}
_PRECONDITIONERS = [
    "", "ic", "ilu", "amg", "jacobi", "ssor", "schwarz", "cluster", "block_jacobi",
    "chebyshev", "spai", "gauss_seidel", "neumann", "nystrom", "pivoted_cholesky",
]  # fmt: skip
#: Names for what is tried under another one; and those that need a definite matrix.
_ALIASES = ("auto", "coarse_grid")
_DEFINITE = ("ic", "nystrom", "pivoted_cholesky")
#: Least squares, which square systems are tried with last.
_LEAST_SQUARES = ("LSMR", "LSQR", "CGLS", "CRAIG", "Normal", "QR", "SVD")
_SCIPY = {"gmres": False, "bicgstab": False, "cg": True, "minres": True}


class Facts(NamedTuple):
    """What decides who fits: the shape, whether A is (also) sparse, what its entries promise."""

    shape: tuple[int, int]
    sparse: bool
    tags: frozenset[str]
    real: bool

    @property
    def square(self) -> bool:
        return self.shape[0] == self.shape[1]

    @property
    def definite(self) -> bool:
        return bool(self.tags & {"positive-definite", "negative-definite"})

    @property
    def fits_dense(self) -> bool:
        return max(self.shape) <= MATRIX_FREE_SIZE


def facts_of(matrix: Matrix, tags: frozenset[str]) -> Facts:
    """The facts of a matrix with its promises."""
    filling = np.count_nonzero(dense(matrix)) / matrix.size if _is_dense(matrix) else 0.0
    return Facts(matrix.shape, filling < _SPARSE, tags, not np.iscomplexobj(matrix))


def contestants(facts: Facts, arguments: argparse.Namespace) -> list[Row]:
    """Rows to fill, those with the best prospects first."""
    rows = [row for _, row in sorted(_all(facts, arguments), key=lambda pair: pair[0])]
    solvers, names = _asked(arguments.solver), _asked(arguments.preconditioner)
    if solvers:
        rows = [row for row in rows if _key(row.solver) in solvers]
    if names:
        rows = [row for row in rows if (row.preconditioner or "none") in names]
    rows = [_own(path, facts) for path in arguments.also] + rows
    if not rows:
        raise BadInput(
            "--solver, --preconditioner: leave no contestant that fits this matrix. Leave them "
            "out; the table of solvers is `python -m linsolve_prim info`."
        )
    return rows


def _asked(names: list[str]) -> set[str]:
    return {_key(name) for name in names}


def _key(name: str) -> str:
    return name.lower().replace(" ", "-")


def _is_dense(matrix: Matrix) -> bool:
    return isinstance(matrix, np.ndarray)


def _own(path: str, facts: Facts) -> Row:
    """The user's own solver: `--also module:expression`."""
    module, colon, expression = path.partition(":")
    if not (module and colon and expression):
        raise BadInput(f"--also: must be module:expression, as my_solvers:MySolver(); got {path}.")
    form = "sparse" if facts.sparse else "dense"
    return Row(path, "", f"__import__({module!r}, fromlist=['*']).{expression}", form)


# ---- who fits ------------------------------------------------------------------------------------


def _all(facts: Facts, arguments: argparse.Namespace) -> Iterator[tuple[tuple[int, int], Row]]:
    """Every contestant with its place in the order."""
    settings = f"rtol={arguments.rtol!r}"
    for info in _solvers():
        if not _fits(info, facts):
            continue
        form = "sparse" if facts.sparse and info.name not in _DENSE else "dense"
        if info.name == "SciPyIterative":
            yield from _scipy(facts, settings, form)
        elif info.kind == "direct":
            yield (
                _place_of_direct(info.name, form, facts),
                Row(info.name, "", f"lp.{info.name}()", form),
            )
        elif info.name not in _METHODS:  # of the host, or around another solver
            inner = "lp.LU(), " if info.name == "IterativeRefinement" else ""
            code = f"lp.{info.name}({inner}{settings})"
            yield (1, 0), Row(info.name, "", code, form)
        else:
            yield from _preconditioned(info, facts, settings, form)


@functools.cache
def _solvers() -> tuple[Any, ...]:
    return tuple(lp.list_solvers())


def _fits(info: Any, facts: Facts) -> bool:
    if info.name == "HostSolver" or (info.name in _DENSE and not facts.fits_dense):
        return False
    if not facts.square:
        return info.rectangular and info.name != "SciPyIterative"
    symmetric = facts.definite or ("symmetric" in facts.tags and facts.real)
    return {
        "nothing": True,
        "symmetric": symmetric,
        "definite": facts.definite,
        "triangular": bool(facts.tags & {"lower-triangular", "upper-triangular"}),
        "tridiagonal": "tridiagonal" in facts.tags,
        "diagonal": "diagonal" in facts.tags,
    }.get(info.assumes, False)


def _place_of_direct(name: str, form: str, facts: Facts) -> tuple[int, int]:
    """Dense factorizations of large matrices wait: they may take all the time there is."""
    if form == "sparse" or max(facts.shape) <= _SMALL:
        return (0, _late(name, facts))
    return (4, 0) if _late(name, facts) else (1 if not facts.sparse else 2, 4)


def _late(name: str, facts: Facts) -> int:
    return int(facts.square and name in _LEAST_SQUARES)


def _scipy(facts: Facts, settings: str, form: str) -> Iterator[tuple[tuple[int, int], Row]]:
    for name, definite in _SCIPY.items():
        if facts.definite or not definite:
            code = f"lp.SciPyIterative({name!r}, {settings})"
            yield (3, 0), Row(f"SciPy {name}", "", code, form)


def _preconditioned(
    info: Any, facts: Facts, settings: str, form: str
) -> Iterator[tuple[tuple[int, int], Row]]:
    """A method alone, and with everything in `lp.preconditioners.NAMES` that can stand beside it."""
    main = _MAIN["definite" if facts.definite else "general"]
    method = main.index(info.name) if info.name in main else _METHODS.index(info.name)
    for name in ["", *lp.preconditioners.NAMES]:
        bare = not facts.square or not info.preconditioning or info.name == "Normal"
        if name in _ALIASES or (name and bare) or (name in _DEFINITE and not facts.definite):
            continue
        if name in ("ilu", "amg", "ic") and form == "dense":  # for sparse matrices
            continue
        place = _place(name)
        later = info.name not in main and name != ""
        order = (4 + _late(info.name, facts), method + place) if later else (2, method + place)
        code = f"lp.{info.name}({_with(name, settings, info.name)})"
        yield order, Row(info.name, name, code, form)


def _place(preconditioner: str) -> int:
    known = preconditioner in _PRECONDITIONERS
    return _PRECONDITIONERS.index(preconditioner) if known else len(_PRECONDITIONERS)


def _with(preconditioner: str, settings: str, method: str) -> str:
    """The arguments of a method. (AMG looks at numbers before anything is compiled.)"""
    if method == "Normal":
        return f"lp.CG({settings})"
    if preconditioner == "amg":
        return f"{settings}, preconditioner=lp.preconditioners.AMG().prepare(A)"
    return f"{settings}, preconditioner={preconditioner!r}" if preconditioner else settings
