"""Every preconditioner with every method that takes it, on systems that were chosen to break them.

Never an exception but a refusal with a message while tracing; never NaN in a solution that is called
successful; and no success that the true residual contradicts.
"""

import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from krylov_tools import COMPLEX, REAL, quick_jit
from preconditioner_problems import ROWS, advection, poisson

import linsolve_prim as lp
from linsolve_prim import preconditioners as pc

SIDE = 5
SIZE = SIDE**2
PATTERN = lp.SparseLinearOperator.from_scipy(poisson(SIDE)).pattern
RNG = np.random.default_rng(0)
PLAIN = RNG.normal(size=SIZE)
RTOL = {"float64": 1e-6, "float32": 1e-3, "complex128": 1e-6, "complex64": 1e-3}


# ---- systems: entries on one pattern, so that a program is compiled once for all of them -----------


def on_pattern(matrix):
    return np.asarray(sp.csr_array(matrix).toarray())[PATTERN.rows, PATTERN.indices]


def without(matrix, row=None, diagonal=()):
    out = matrix.toarray()
    if row is not None:
        out[row] = 0
    out[diagonal, diagonal] = 0
    return sp.csr_array(out)


def neumann():
    """The Laplacian of the grid as a graph: constants are its null space."""
    a = poisson(SIDE)
    return sp.csr_array(a - sp.diags_array(a.sum(axis=1)))


def scaled(exponents):
    d = sp.diags_array(10.0 ** np.asarray(exponents))
    return sp.csr_array(d @ poisson(SIDE) @ d)


def with_entry(matrix, value):
    out = sp.csr_array(matrix).copy()
    out.data[7] = value
    return out


GOOD = poisson(SIDE) + sp.eye_array(SIZE)
SYSTEMS = {
    "well": (GOOD, PLAIN),
    "no right-hand side": (GOOD, 0 * PLAIN),
    "ill": (scaled(np.linspace(-4, 4, SIZE)), PLAIN),
    "singular, in the range": (neumann(), PLAIN - PLAIN.mean()),
    "singular, out of the range": (neumann(), PLAIN),
    "nearly singular": (neumann() + 1e-13 * sp.eye_array(SIZE), PLAIN),
    "large": (GOOD * 1e20, PLAIN),
    "small": (GOOD * 1e-20, PLAIN),
    "large right-hand side": (GOOD, 1e20 * PLAIN),
    "small right-hand side": (GOOD, 1e-20 * PLAIN),
    "rows of all sizes": (
        sp.csr_array(sp.diags_array(10.0 ** RNG.integers(-6, 7, SIZE)) @ GOOD),
        PLAIN,
    ),
    "zero row": (without(GOOD, row=7), PLAIN),
    "zero row, in the range": (without(GOOD, row=7), without(GOOD, row=7) @ PLAIN),
    "zero on the diagonal": (without(GOOD, diagonal=[0, 7]), PLAIN),
    "no diagonal": (without(GOOD, diagonal=np.arange(SIZE)), PLAIN),
    "negative": (-GOOD, PLAIN),
    "indefinite": (GOOD - 4 * sp.eye_array(SIZE), PLAIN),
    "not symmetric": (advection(SIDE), PLAIN),
    "mostly advection": (advection(SIDE, 20.0), PLAIN),
    "zeros": (0 * GOOD, PLAIN),
    "zeros, no right-hand side": (0 * GOOD, 0 * PLAIN),
    "NaN in A": (with_entry(GOOD, np.nan), PLAIN),
    "infinity in A": (with_entry(GOOD, np.inf), PLAIN),
    "NaN in b": (GOOD, np.where(np.arange(SIZE) == 3, np.nan, PLAIN)),
    "infinity in b": (GOOD, np.where(np.arange(SIZE) == 3, np.inf, PLAIN)),
    "one": (GOOD, np.eye(SIZE)[0]),
}

# ---- methods and preconditioners -------------------------------------------------------------------

#: name: (method, whether it needs a promise)
METHODS = {
    "CG": (lp.CG, True), "CGAdaptive": (lp.CGAdaptive, True), "FCG": (lp.FCG, True),
    "MINRES": (lp.MINRES, True), "MINRESQLP": (lp.MINRESQLP, True), "SYMMLQ": (lp.SYMMLQ, True),
    "GMRES": (lp.GMRES, False), "FGMRES": (lp.FGMRES, False), "LGMRES": (lp.LGMRES, False),
    "GCROT": (lp.GCROT, False), "BiCG": (lp.BiCG, False), "BiCGStab": (lp.BiCGStab, False),
    "CGS": (lp.CGS, False), "QMR": (lp.QMR, False), "TFQMR": (lp.TFQMR, False), "IDR": (lp.IDR, False),
    "Chebyshev": (lp.Chebyshev, True), "Richardson": (lp.Richardson, False),
    "LSMR": (lp.LSMR, False), "LSQR": (lp.LSQR, False), "CGLS": (lp.CGLS, False), "CRAIG": (lp.CRAIG, False),
}  # fmt: skip

MORE = {
    "AMG": pc.AMG,
    "AMG(RS)": lambda: pc.AMG("ruge_stuben", max_coarse=4),
    "AMG(W)": lambda: pc.AMG(cycle="W", max_coarse=4),
    "AMG(F)": lambda: pc.AMG(cycle="F", max_coarse=4),
    "AMG(root_node)": lambda: pc.AMG("root_node", max_coarse=4, smoother="l1_jacobi"),
    "AMG(prepared)": lambda dtype: pc.AMG(max_coarse=4).prepare(system(GOOD, dtype)),
    "GeometricMultigrid": lambda: pc.GeometricMultigrid(grid=(SIDE, SIDE)),
    "LowPrecision": lambda: pc.LowPrecision(pc.AMG(max_coarse=4)),
}
PRECONDITIONERS = {row.name: row.make for row in ROWS if "labels" not in row.name} | MORE
LABELS = np.arange(SIZE) % 7
PRECONDITIONERS |= {
    "BlockJacobi(labels)": lambda: pc.BlockJacobi(LABELS),
    "Schwarz(labels)": lambda: pc.Schwarz(LABELS, restricted=False),
    "CoarseGrid(additive)": lambda: pc.CoarseGrid(LABELS, additive=True),
}


#: Of which the normal equations are enough: of singular systems they find a least-squares solution.
LEAST_SQUARES = ("LSMR", "LSQR", "CGLS", "MINRESQLP")

#: Here by default; the others with the slow tests.
QUICK = (
    ("CG", "AMG", "right", REAL),
    ("GMRES", "ILU", "left", REAL),
    ("BiCGStab", "ILU(host)", "right", COMPLEX),
    ("MINRES", "SSOR", "right", np.float32),
    ("CGLS", "Compose", "right", REAL),
    ("LSMR", "SPAI", "right", np.float32),
    ("LSQR", "Compose(additive)", "right", REAL),
)

#: What a refusal says: which argument, and why.
REFUSAL = r"^(preconditioner|operator|side|cycle|parts|fields|grid|labels)\b.*: .*(must|needs?|precondition)"


def cases():
    """One of the sides and one of the dtypes for each pair, by chance; and what is `QUICK`."""
    dtypes = (REAL, np.float32, COMPLEX)
    found = dict.fromkeys(QUICK)
    for method in METHODS:
        for preconditioner in PRECONDITIONERS:
            number = zlib.crc32(f"{method}, {preconditioner}".encode())
            side = ("right", "left")[number % 2]
            found[method, preconditioner, side, dtypes[number // 2 % 3]] = None
    for case in found:
        marks = [] if case in QUICK else [pytest.mark.slow]
        *names, dtype = case
        yield pytest.param(*case, id="-".join([*names, np.dtype(dtype).name]), marks=marks)


def system(matrix, dtype=REAL, tags=lp.positive_semidefinite_tag):
    return lp.SparseLinearOperator(jnp.asarray(on_pattern(matrix), dtype), PATTERN, tags)


def given(name, dtype):
    """The entries of a matrix and b; for complex numbers, of a Hermitian matrix where it is symmetric."""
    matrix, b = SYSTEMS[name]
    values = on_pattern(matrix)
    if np.issubdtype(dtype, np.complexfloating):
        values = values * np.exp(0.3j * np.sign(PATTERN.indices - PATTERN.rows))
        b = b * (1 + 0.5j)
    return jnp.asarray(values, dtype), jnp.asarray(b, dtype)


def solver_of(method, preconditioner, side, dtype):
    made = PRECONDITIONERS[preconditioner]
    made = made(dtype) if preconditioner == "AMG(prepared)" else made()
    settings = {"preconditioner": made, "max_steps": 60}
    if side == "left":
        settings["side"] = side
    rtol = RTOL[np.dtype(dtype).name]
    return METHODS[method][0](rtol, **settings)


def solve_with(solver, promised, pattern=PATTERN):
    tags = lp.positive_semidefinite_tag if promised else ()

    def solve(values, b):
        operator = lp.SparseLinearOperator(values, pattern, tags)
        solution = lp.linear_solve(operator, b, solver, throw=False)
        return solution.value, solution.result == lp.RESULTS.successful

    return solve


def verdict(values, b, x, success, rtol, least_squares=False):
    """What is wrong with this answer, or None."""
    if not success:
        return None
    eps = float(np.finfo(values.dtype).eps)
    x, b, values = (np.asarray(v, np.clongdouble) for v in (x, b, values))
    if not np.all(np.isfinite(x)):
        return "success with a solution that is not finite"
    if not (np.all(np.isfinite(b)) and np.all(np.isfinite(values))):
        return "success with input that is not finite"
    a = np.zeros((SIZE, SIZE), np.clongdouble)
    a[PATTERN.rows, PATTERN.indices] = values
    norm = lambda v: float(np.sqrt(np.sum(np.abs(v) ** 2)))
    r = b - a @ x
    rounding = 10 * eps * norm(values) * norm(x)
    bound = 1.01 * rtol * norm(b) + rounding
    if norm(r) <= bound:
        return None
    gradient = norm(a.conj().T @ r)
    if least_squares and gradient <= 10 * rtol * norm(values) * norm(r):
        return None
    return f"success with a residual of {norm(r)} for b of {norm(b)}; Aᴴr is {gradient}"


@pytest.mark.filterwarnings("ignore")  # of libraries, which divide by zero
@pytest.mark.parametrize(("method", "preconditioner", "side", "dtype"), list(cases()))
def test_no_method_is_fooled_S1_14(method, preconditioner, side, dtype):
    """S1-14, S0-30: one program for a pair, given systems that break it in different ways."""
    try:
        solver = solver_of(method, preconditioner, side, dtype)
        solve = quick_jit(solve_with(solver, METHODS[method][1])).lower(*given("well", dtype))
    except (ValueError, TypeError, NotImplementedError) as refusal:
        assert re.search(REFUSAL, str(refusal), re.DOTALL), refusal
        return
    run, wrong = solve.compile(), {}
    for name in SYSTEMS:
        values, b = given(name, dtype)
        x, success = run(values, b)
        least_squares = method in LEAST_SQUARES
        found = verdict(values, b, x, success, RTOL[np.dtype(dtype).name], least_squares)
        if found:
            wrong[name] = found
    assert not wrong


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("method", "preconditioner"),
    [
        ("GMRES", "ILU"),
        pytest.param("CG", "AMG(prepared)", marks=pytest.mark.slow),
        pytest.param("BiCGStab", "GaussSeidel", marks=pytest.mark.slow),
        pytest.param("LSMR", "Compose", marks=pytest.mark.slow),
    ],
)
def test_no_lane_spoils_another_S1_14(method, preconditioner):
    """S1-14: all of the systems in one batch, each judged as if it were alone."""
    names = list(SYSTEMS)
    values, b = (jnp.stack(parts) for parts in zip(*(given(name, REAL) for name in names)))
    solver = solver_of(method, preconditioner, "right", REAL)
    x, success = quick_jit(jax.vmap(solve_with(solver, METHODS[method][1])))(values, b)
    rtol, least_squares = RTOL[np.dtype(REAL).name], method in LEAST_SQUARES
    found = [verdict(*lane, rtol, least_squares) for lane in zip(values, b, x, success)]
    assert not {name: what for name, what in zip(names, found) if what}
    assert success[names.index("well")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "preconditioner",
    [
        pytest.param(name, marks=[] if name in ("Jacobi", "SSOR") else [pytest.mark.slow])
        for name in PRECONDITIONERS
    ],
)
def test_one_unknown_S0_30(preconditioner):
    """S0-30: 1×1, of every sign, zero, and not a number."""
    pattern = lp.SparsityPattern.from_csr([0, 1], [0], (1, 1))
    try:
        solver = solver_of("GMRES", preconditioner, "right", REAL)
        run = quick_jit(solve_with(solver, True, pattern))
        run = run.lower(jnp.ones(1, REAL), jnp.ones(1, REAL)).compile()
    except (ValueError, TypeError) as refusal:  # of labels, say, for more unknowns
        assert re.search(r"^[a-z_]+\b.*: ", str(refusal)), refusal
        return
    for entry in (3.0, -2.0, 0.0, np.nan, 1e-20):
        x, success = run(jnp.full(1, entry, REAL), jnp.ones(1, REAL))
        assert bool(success) <= (np.isfinite(entry) and entry != 0)
        if success:
            np.testing.assert_allclose(x, [1 / entry], rtol=2e-3)
