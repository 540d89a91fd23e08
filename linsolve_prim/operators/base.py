"""The contract of every linear operator."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._types import Structure, structure_equal, structure_size, structure_str
from ..errors import StructureError
from .functions import is_negative_semidefinite, is_positive_semidefinite, is_symmetric

_PLAIN_METHODS = frozenset(
    (
        "in_structure",
        "out_structure",
        "in_size",
        "out_size",
        "as_matrix",
        "transpose",
        "_added_to",
        "_composed_after",
    )
)


class AbstractLinearOperator(eqx.Module):
    """A linear map A: X → Y between pytrees of floating-point or complex arrays.

    **What a subclass must have**: `mv`, `transpose`, `in_structure`, `out_structure`. Everything
    else has a default that follows from these:

    | | default |
    |---|---|
    | `as_matrix()` | the columns A eᵢ, by one `vmap` of `mv` |
    | `is_symmetric(A)`, `is_diagonal(A)`, … | what the attribute `A.tags` (if any) promises |
    | `conj(A)` | x ↦ conj(A conj(x)) |
    | `linearise(A)` | A |
    | `materialise(A)` | the same map held as arrays |
    | `diagonal(A)`, `tridiagonal(A)` | read from the matrix; by 1 or 3 products if A is tagged so |

    A subclass is an `equinox.Module`: its arrays are differentiated, and its other fields are
    compiled in. A better `conj` (or another of these functions) is registered with
    `linsolve_prim.conj.register(MyOperator)`.

    **Laws** (checked by `linsolve_prim.testing.check_operator`):

    - `A.mv(αx + y) == αA.mv(x) + A.mv(y)`;
    - `⟨y, A.mv(x)⟩ == ⟨A.T.mv(y), x⟩` without conjugation, and `A.T.T` acts as `A`;
    - `conj(A).mv(x) == conj(A.mv(conj(x)))`, and `conj` and `transpose` commute;
    - `A.as_matrix()[:, i] == A.mv(eᵢ)`, pytrees being raveled in leaf order;
    - `x` has `A.in_structure()`, `A.mv(x)` has `A.out_structure()`; `A.T` swaps the two;
    - if `A` has a structure (`is_symmetric(A)`, …), then its matrix has it too. For complex
      operators "symmetric" means A = Aᵀ, and "positive semidefinite" implies Hermitian.

    Operators support `A + B`, `A - B`, `A @ B`, `A * s`, `s * A`, `A / s`, `-A`, `A.T`; `A @ x`
    with an array or pytree `x` is `A.mv(x)`.

    **Raises** `StructureError` for a vector of another structure, or for operators that do not fit
    together; `ValueError` for `A * x` with an x that is no scalar.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> class Shift(lp.AbstractLinearOperator):
        ...     n: int
        ...     def mv(self, x):
        ...         return jnp.roll(x, 1)
        ...     def transpose(self):
        ...         return lp.FunctionLinearOperator(lambda x: jnp.roll(x, -1), self.in_structure())
        ...     def in_structure(self):
        ...         return jax.ShapeDtypeStruct((self.n,), jnp.result_type(float))
        ...     out_structure = in_structure
        >>> lp.testing.check_operator(Shift(3))
        >>> print((2 * Shift(3) + lp.IdentityLinearOperator(Shift(3).in_structure())).as_matrix())
        [[1. 0. 2.]
         [2. 1. 0.]
         [0. 2. 1.]]
    """

    def __check_init__(self) -> None:
        if is_symmetric(self) or is_positive_semidefinite(self) or is_negative_semidefinite(self):
            in_structure, out_structure = self.in_structure(), self.out_structure()
            if not structure_equal(in_structure, out_structure):
                raise StructureError(
                    f"{type(self).__name__} is tagged symmetric or definite, so its input and "
                    "output structures must match; got input structure "
                    f"{structure_str(in_structure)} and output structure "
                    f"{structure_str(out_structure)}. Drop the tag, or mend the structures."
                )

    def __getattribute__(self, name: str) -> Any:
        # Equinox makes a pytree of each bound method when it is looked up, at 40 µs a time
        # [measured, 2-core CPU]. It is of use for `mv` (`eqx.filter_jit(A.mv)`), not for these.
        if name in _PLAIN_METHODS:
            return object.__getattribute__(self, name)
        return super().__getattribute__(name)

    @abc.abstractmethod
    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        """The product A x, for `vector` of `in_structure()`; the result has `out_structure()`."""

    @abc.abstractmethod
    def transpose(self) -> AbstractLinearOperator:
        """Aᵀ (without conjugation), from `out_structure()` to `in_structure()`."""

    @abc.abstractmethod
    def in_structure(self) -> Structure:
        """The pytree of `jax.ShapeDtypeStruct`s that `mv` takes."""

    @abc.abstractmethod
    def out_structure(self) -> Structure:
        """The pytree of `jax.ShapeDtypeStruct`s that `mv` returns."""

    def as_matrix(self) -> Array:
        """The matrix of shape `(out_size, in_size)`, pytrees raveled in leaf order; n products."""
        from .dense import matrix_of  # builds on this class

        return matrix_of(self.mv, self.in_structure(), self.out_structure())

    def in_size(self) -> int:
        """Number of columns: scalars in the input."""
        return structure_size(self.in_structure())

    def out_size(self) -> int:
        """Number of rows: scalars in the output."""
        return structure_size(self.out_structure())

    @property
    def T(self) -> AbstractLinearOperator:
        """The same as `transpose()`."""
        return self.transpose()

    # The algebra's classes build on this one, hence the imports inside. The operand on the right is
    # asked what becomes of the two: one that is sparse knows more than its left neighbour.

    def _added_to(self, left: AbstractLinearOperator) -> AbstractLinearOperator:
        from .algebra import AddLinearOperator

        return AddLinearOperator(left, self)

    def _composed_after(self, left: AbstractLinearOperator) -> AbstractLinearOperator:
        from .algebra import ComposedLinearOperator

        return ComposedLinearOperator(left, self)

    def __add__(self, other: Any) -> AbstractLinearOperator:
        return _operand(other, "+")._added_to(self)

    def __sub__(self, other: Any) -> AbstractLinearOperator:
        return (-_operand(other, "-"))._added_to(self)

    def __mul__(self, other: Any) -> AbstractLinearOperator:
        from .algebra import MulLinearOperator

        return MulLinearOperator(self, _scalar(other, "multiplied"))

    def __rmul__(self, other: Any) -> AbstractLinearOperator:
        return self * other

    def __truediv__(self, other: Any) -> AbstractLinearOperator:
        from .algebra import DivLinearOperator

        return DivLinearOperator(self, _scalar(other, "divided"))

    def __neg__(self) -> AbstractLinearOperator:
        from .algebra import NegLinearOperator

        return NegLinearOperator(self)

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, AbstractLinearOperator):
            return other._composed_after(self)
        leaves = jax.tree.leaves(other)
        if leaves and structure_equal(other, self.in_structure()):
            return self.mv(other)
        raise StructureError(
            f"`operator @ other` takes an AbstractLinearOperator, or a vector of structure "
            f"{structure_str(self.in_structure())}; got {_describe(other)}."
        )


def _describe(x: Any) -> str:
    try:
        return f"a value of structure {structure_str(x)}"
    except TypeError:
        return f"an object of type {type(x).__name__}"


def _operand(other: Any, sign: str) -> AbstractLinearOperator:
    if not isinstance(other, AbstractLinearOperator):
        raise ValueError(
            f"`operator {sign} other` needs an AbstractLinearOperator on both sides; got "
            f"{_describe(other)}. Wrap a matrix as `MatrixLinearOperator(matrix)`."
        )
    return other


def _scalar(other: Any, verb: str) -> Any:
    if jnp.shape(other) != ():
        raise ValueError(
            f"A linear operator can only be {verb} by a scalar; got an array of shape "
            f"{jnp.shape(other)}. Compose operators with `@`."
        )
    return other
