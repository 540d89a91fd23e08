"""Typical code of a user: it must pass a strict type checker, which reads our annotations (`py.typed`)."""

from typing import Any

import jax
import jax.numpy as jnp

import linsolve_prim as lp


def poisson(n: int) -> lp.SparseLinearOperator:
    rows, cols = jnp.arange(n), jnp.arange(n)
    return lp.SparseLinearOperator.from_coo(rows, cols, jnp.ones(n), (n, n))


class Shift(lp.AbstractLinearOperator):
    """An operator of one's own."""

    size: int

    def mv(self, vector: Any) -> Any:
        return jnp.roll(vector, 1)

    def transpose(self) -> lp.AbstractLinearOperator:
        return lp.FunctionLinearOperator(lambda x: jnp.roll(x, -1), self.in_structure())

    def in_structure(self) -> Any:
        return jax.ShapeDtypeStruct((self.size,), jnp.result_type(float))

    def out_structure(self) -> Any:
        return self.in_structure()


def statistics(solution: lp.Solution) -> tuple[bool, int]:
    ok = solution.result == lp.RESULTS.successful
    return bool(ok), int(solution.stats["num_steps"])


def main() -> None:
    operator = poisson(5)
    b = jnp.ones(5)
    x = lp.solve(operator, b, lp.CG(rtol=1e-6, preconditioner=lp.preconditioners.Jacobi()))
    solution = lp.linear_solve(operator, b, lp.GMRES(restart=10), throw=False)
    print(x, statistics(solution), lp.explain(operator, b))
    factors: lp.Factorization = lp.factorize(operator, lp.SuperLU())
    print(factors.solve(b))
    print((2.0 * operator + operator.T).mv(b), Shift(5).mv(b))
    with lp.SolveTape() as tape:
        lp.lstsq(jnp.ones((3, 2)), jnp.ones(3))
    print([entry.kind for entry in tape])
    try:
        lp.solve(jnp.zeros((2, 2)), jnp.ones(2))
    except lp.SingularMatrixError as error:
        print(error.solution)
    root = lp.root_solve(lambda x: x**2 - 2.0, jnp.ones(1), lp.nonlinear.Newton())
    print(root.value, lp.list_solvers()["LU"].assumes)


if __name__ == "__main__":
    main()
