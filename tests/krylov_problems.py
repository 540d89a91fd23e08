"""The Krylov methods with what each is for, and the systems that they are tested on."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from krylov_tools import COMPLEX, REAL, normal, with_spectrum

import linsolve_prim as lp


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """One method (with settings that make it one of its own), and the systems that it claims.

    - `kind`: "definite", "hermitian" (indefinite too) or "general".
    - `robust`: whether every regular system of that kind is solved, rounding errors apart.
    - `least_squares`: whether it solves systems without a solution, in that sense.
    - `products`: with A and with Aᴴ in each step, and with A beside those.
    - `slow`: how many times more steps it takes than a Krylov method.
    - `variant`: it stands beside another row for the same class, and is tested with the slow tests.
    """

    name: str
    make: Any
    kind: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    robust: bool = False
    least_squares: bool = False
    products: tuple[int, int, int] = (1, 0, 1)
    slow: int = 1
    variant: bool = False

    def __call__(self, **settings):
        return self.make(**(self.settings | settings))


METHODS = [
    Method("CG", lp.CG, "definite", robust=True),
    Method("CGAdaptive", lp.CGAdaptive, "definite"),
    Method("FCG", lp.FCG, "definite", {"mmax": 3}),
    Method("MINRES", lp.MINRES, "hermitian", robust=True, products=(1, 0, 3)),
    Method(
        "MINRESQLP",
        lp.MINRESQLP,
        "hermitian",
        robust=True,
        least_squares=True,
        products=(1, 0, 5),
    ),
    Method("SYMMLQ", lp.SYMMLQ, "hermitian", robust=True, products=(1, 0, 3)),
    Method("Chebyshev", lp.Chebyshev, "definite", products=(1, 0, 12)),
    Method(
        "Richardson", lp.Richardson, "definite", {"max_steps": 400}, slow=3, products=(1, 0, 12)
    ),
    Method("BiCG", lp.BiCG, "general", products=(1, 1, 1)),
    Method("CGS", lp.CGS, "general", products=(2, 0, 1)),
    Method("QMR", lp.QMR, "general", products=(1, 1, 1)),
    Method("TFQMR", lp.TFQMR, "general", products=(2, 0, 1)),
    Method("BiCGStab", lp.BiCGStab, "general", products=(2, 0, 1)),
    Method("BiCGStab(2)", lp.BiCGStab, "general", {"ell": 2}, products=(4, 0, 1)),
    Method(
        "BiCGStab(4)",
        lp.BiCGStab,
        "general",
        {"ell": 4},
        variant=True,
        products=(8, 0, 1),
    ),
    Method("IDR(1)", lp.IDR, "general", {"s": 1}, variant=True),
    Method("IDR(4)", lp.IDR, "general"),
]
BY_NAME = {method.name: method for method in METHODS}


def each(kinds=("definite", "hermitian", "general"), but=()):
    """`@pytest.mark.parametrize` over the methods for these kinds of systems."""
    chosen = [m for m in METHODS if m.kind in kinds and m.name not in but]
    slow = lambda m: [pytest.mark.slow] if m.variant else []
    rows = [pytest.param(m, id=m.name, marks=slow(m)) for m in chosen]
    return pytest.mark.parametrize("method", rows)


def tags(method):
    """What the method asks an operator to promise."""
    return frozenset([lp.positive_semidefinite_tag] if method.kind == "definite" else [])


def operator(method, a):
    """A matrix, with that promise."""
    return lp.MatrixLinearOperator(jnp.asarray(a), tags(method))


def fits(method, kind):
    """Whether a method claims to solve systems of this kind."""
    return (
        kind
        in {
            "definite": ("definite", "negative"),
            "hermitian": ("definite", "negative", "hermitian"),
            "general": ("definite", "negative", "hermitian", "general"),
        }[method.kind]
    )


def system(kind, n, dtype=REAL, seed=0):
    """A well-conditioned matrix of a kind, and a right-hand side."""
    b = normal(n, dtype, seed + 1000)
    if kind == "general":
        a = 3 * np.eye(n) + normal((n, n), dtype, seed) / np.sqrt(n)
        return a.astype(dtype), b
    sizes = np.linspace(1, 4, n)
    if kind == "hermitian":
        sizes[::3] *= -1
    q = np.linalg.qr(normal((n, n), dtype, seed))[0]
    a = (q * sizes) @ q.conj().T
    return ((a + a.conj().T) / 2).astype(dtype), b


def poisson(n, dim=1):
    """The matrix of −Δ on n points (or n²), zero at the boundary."""
    one = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    return one if dim == 1 else np.kron(one, np.eye(n)) + np.kron(np.eye(n), one)


def grid(n=36):
    """SciPy's grid of problems for iterative solvers, made anew: name → (kind, matrix).

    n is a square number, so that all of them have one size.
    """
    rng = np.random.default_rng(7)
    uniform = lambda: rng.uniform(size=(n, n))
    one, two = poisson(n), poisson(int(n**0.5), 2)
    eye = np.eye(n)
    up, down = np.eye(n, k=1), np.eye(n, k=-1)
    far = np.eye(n, k=6) + np.eye(n, k=-6)
    square = lambda a: a.conj().T @ a + eye
    a, c = uniform(), uniform() + 1j * uniform()
    return {
        "poisson 1d": ("definite", one),
        "negative poisson 1d": ("negative", -one),
        "poisson 2d": ("definite", two),
        "negative poisson 2d": ("negative", -two),
        "random diagonal": ("definite", np.diag(rng.uniform(0.2, 1, n))),
        "random": ("general", uniform()),
        "random symmetric": ("hermitian", a + a.T),
        "random definite": ("definite", square(uniform())),
        "random complex": ("general", c),
        "random hermitian": ("hermitian", c + c.conj().T),
        "random complex definite": ("definite", square(uniform() + 1j * uniform())),
        "complex symmetric": ("general", c + c.T + 20 * eye),
        "nonsymmetric definite": ("general", two + 2 * (up - down)),
        "convection": ("general", 4 * eye - 1.5 * up - 0.5 * down - far),
    }


def singular(kind, n, rank, seed=0, dtype=REAL):
    """A matrix of a kind with this rank, and nonzero singular values between 1 and 3."""
    sizes = np.linspace(1, 3, rank)
    if kind == "general":
        return with_spectrum(sizes, (n, n), seed, dtype)
    if kind == "hermitian":
        sizes[::2] *= -1
    q = np.linalg.qr(normal((n, rank), dtype, seed))[0]
    a = (q * sizes) @ q.conj().T
    return ((a + a.conj().T) / 2).astype(dtype)


def blocks(a, n_p):
    """The same matrix on the pytree {"p": (n_p, 1), "u": (n − n_p,)}, without tags."""
    n = a.shape[0]
    structure = {
        "p": jax.ShapeDtypeStruct((n_p, 1), a.dtype),
        "u": jax.ShapeDtypeStruct((n - n_p,), a.dtype),
    }
    pp, pu, up, uu = a[:n_p, :n_p], a[:n_p, n_p:], a[n_p:, :n_p], a[n_p:, n_p:]
    tree = {
        "p": {"p": pp.reshape(n_p, 1, n_p, 1), "u": pu.reshape(n_p, 1, n - n_p)},
        "u": {"p": up.reshape(n - n_p, n_p, 1), "u": uu},
    }
    return jax.tree.map(jnp.asarray, tree), structure


DTYPES = [REAL, COMPLEX, *([np.float32] if REAL is np.float64 else [])]
