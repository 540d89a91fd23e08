"""What must work where only the wheel is installed: every kind of solver, with a gradient."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

import linsolve_prim as lp

assert "site-packages" in str(pathlib.Path(lp.__file__)), lp.__file__
assert (pathlib.Path(lp.__file__).parent / "py.typed").exists()
assert lp.__version__ != "0.0.0"

A, b = jnp.array([[4.0, 1.0], [2.0, 3.0]]), jnp.array([6.0, 8.0])
np.testing.assert_allclose(lp.solve(A, b), [1, 2], rtol=1e-5)
np.testing.assert_allclose(lp.solve(A, b, lp.GMRES()), [1, 2], rtol=1e-3)
np.testing.assert_allclose(lp.solve(sp.csr_array(np.asarray(A)), b), [1, 2], rtol=1e-5)
gradient = jax.jit(jax.grad(lambda A: jnp.sum(lp.solve(A, b) ** 2)))(A)
reference = jax.grad(lambda A: jnp.sum(jnp.linalg.solve(A, b) ** 2))(A)
np.testing.assert_allclose(gradient, reference, rtol=1e-4)
for row in lp.list_solvers():
    row.example()
print("linsolve_prim", lp.__version__, "with JAX", jax.__version__, "solves without its sources")
