"""The contract of every preconditioner."""

from __future__ import annotations

import abc

import equinox as eqx

from ..operators import AbstractLinearOperator


class AbstractPreconditioner(eqx.Module):
    """How an operator M that approximates A⁻¹ is made from A.

    A solver that is given one as its `preconditioner` (or a solve as `preconditioner=`) makes M for
    the operator that it meets; under `jit`, `vmap` and `grad` as everything else. M carries no
    tangents: a converged solution does not depend on it, and neither does its derivative. Adjoint
    solves take Mᵀ.

    While A changes, what one passes says which of three things happens:

    - `preconditioner=P`: *rebuilt*. M is made for each operator that is met.
    - `preconditioner=P.prepare(A)`: *refreshed*. What follows from the pattern of A, and what is costly
      (aggregates, interpolation), is kept; the rest follows the values that are met, on the device.
    - `preconditioner=P.init(A)`: *kept*. M is an operator like any other, whatever is met.

    **Required**: `init`, and `keeps_definite` where M is symmetric definite.

    **Laws** (those of operators hold for M): M maps `A.out_structure()` to `A.in_structure()`, it is
    linear, and it has a transpose: that of Mᵀ approximates A⁻ᵀ.

    **Raises**, while a program is traced, `WrongTypeError` or `StructureError` for an operator of which
    M cannot be made; methods that need a definite M refuse others by a `ValueError`.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> class Scaled(lp.preconditioners.AbstractPreconditioner):
        ...     def init(self, operator):
        ...         return lp.DiagonalLinearOperator(1 / lp.diagonal(operator))
        ...     def keeps_definite(self, operator):
        ...         return lp.is_positive_semidefinite(operator)
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.array([1.0, 10.0, 100.0])), lp.positive_semidefinite_tag)
        >>> solution = lp.linear_solve(A, jnp.ones(3), lp.CG(preconditioner=Scaled()))
        >>> int(solution.stats["num_steps"])
        1
    """

    @property
    def needs_values(self) -> bool:
        """Whether `init` looks at numbers, on the host: then it is called before a solve is compiled,
        unless the operator is traced already."""
        return False

    @abc.abstractmethod
    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        """M for this operator, of which values may be traced.

        **Raises** `ValueError` or `TypeError` for operators that this preconditioner cannot be made for,
        naming what it needs.
        """

    def prepare(self, operator: AbstractLinearOperator) -> AbstractPreconditioner:
        """The same with all that need not be done again for an operator of the same pattern.

        `self` if there is nothing of the kind.
        """
        del operator
        return self

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        """Whether M is symmetric (Hermitian) definite, which CG and MINRES ask for: by what is known
        of A, and not by its values."""
        del operator
        return False
