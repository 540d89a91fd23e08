"""`JacobianLinearOperator`: the derivative of a function at a point."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from .._types import Structure, inexact_asarray, structure_of
from .._varying import vary_like, varying_axes
from . import functions as fns
from .base import AbstractLinearOperator
from .closure import close
from .dense import matrix_of
from .function import FunctionLinearOperator, _inexact
from .structures import PackedStructure, check_vector, pack, unpack
from .tags import as_tags, transpose_tags

Product = Callable[[PyTree[Array]], PyTree[Array]]


class JacobianLinearOperator(AbstractLinearOperator):
    """The Jacobian ∂fn(x, args)/∂x as an operator, v ↦ J v. It is never formed.

    Each product is one `jax.jvp`. `linearise` evaluates `fn` once for all products to come;
    `materialise` forms the Jacobian. It is differentiable in `x`, in the arrays of `args`, and in
    what `fn` captures.

    - `fn`: a function of x and `args`, between pytrees of arrays.
    - `x`: the point, a pytree; products take and return pytrees like x and `fn(x, args)`.
    - `jac`: "fwd" (or `None`) makes the matrix by columns, "bwd" by rows: for few results of many x.

    **Raises** `ValueError` for another `jac`, `StructureError` for a vector of another structure.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> J = lp.JacobianLinearOperator(lambda x, args: jnp.sin(args * x), jnp.zeros(2), jnp.array(3.0))
        >>> print(J.mv(jnp.array([1.0, 2.0])), J.T.mv(jnp.ones(2)))
        [3. 6.] [3. 3.]
    """

    fn: Callable[[PyTree[Array], PyTree], PyTree[Array]]
    x: PyTree[Array]
    args: PyTree
    tags: frozenset[object] = eqx.field(static=True)
    jac: str | None = eqx.field(static=True)
    output_structure: PackedStructure = eqx.field(static=True)

    def __init__(
        self,
        fn: Callable[[PyTree[Array], PyTree], PyTree[Array]],
        x: PyTree,
        args: PyTree = None,
        tags: object | Iterable[object] = (),
        jac: str | None = None,
        closure_convert: bool = True,
    ):
        """**Arguments**

        - `fn`: a function `(x, args) -> y` of pytrees.
        - `x`: the point; integers are promoted to the default float dtype.
        - `args`: passed on to `fn`. What is not an array in it is compiled in.
        - `tags`: what is promised about the Jacobian.
        - `jac`: `"fwd"` for forward mode, `"bwd"` for reverse mode, which functions with only a
          `jax.custom_vjp` need. `None` is forward mode for products, and whichever is cheaper to
          form the matrix.
        - `closure_convert`: trace `fn` now, once. If `False`, `fn` is called for each product and
          must be a pytree itself, if it captures arrays that are traced or differentiated.

        **Raises** `ValueError` for any other `jac`.
        """
        if jac not in (None, "fwd", "bwd"):
            raise ValueError(
                f"jac: must be 'fwd', 'bwd' or None; got {jac!r}. Pass 'bwd' for a function that "
                "has only a `jax.custom_vjp`, and leave it out otherwise."
            )
        self.x = jax.tree.map(inexact_asarray, x)
        if closure_convert:
            fn = close(_inexact(fn), self.x, args)
            self.output_structure = fn.output_structure
        else:
            out = jax.eval_shape(lambda x: fn(x, args), structure_of(self.x))
            self.output_structure = pack(structure_of(out))
        self.fn = fn
        self.args = args
        self.tags = as_tags(tags)
        self.jac = jac

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        check_vector(vector, self.in_structure())
        if self.jac == "bwd":
            return _backward_product(self)(vector)
        x, vector = vary_like((self.x, vector), varying_axes((self.x, vector)))
        return jax.jvp(self._at, (x,), (vector,))[1]

    def as_matrix(self) -> Array:
        in_structure, out_structure = self.in_structure(), self.out_structure()
        if self.jac == "bwd" or (self.jac is None and self.out_size() < self.in_size()):
            return matrix_of(_transposed_product(self), out_structure, in_structure).T
        return matrix_of(_linearised_product(self), in_structure, out_structure)

    def transpose(self) -> AbstractLinearOperator:
        if fns.is_symmetric(self):
            return self
        return FunctionLinearOperator(
            _transposed_product(self), self.out_structure(), transpose_tags(self.tags)
        )

    def in_structure(self) -> Structure:
        return structure_of(self.x)

    def out_structure(self) -> Structure:
        return unpack(self.output_structure)

    def _at(self, x: PyTree[Array]) -> PyTree[Array]:
        return self.fn(x, self.args)


def _transposed_product(operator: JacobianLinearOperator) -> Product:
    """v ↦ Jᵀv, after one evaluation of `fn`."""
    y, vjp = jax.vjp(operator._at, operator.x)
    return lambda vector: vjp(vary_like(vector, varying_axes(y)))[0]


def _backward_product(operator: JacobianLinearOperator) -> Product:
    """v ↦ Jv from reverse mode alone: the transpose of v ↦ Jᵀv."""
    transposed = _transposed_product(operator)
    if fns.is_symmetric(operator):
        return transposed
    product = jax.linear_transpose(transposed, operator.out_structure())
    return lambda vector: product(vector)[0]


def _linearised_product(operator: JacobianLinearOperator) -> Product:
    """v ↦ Jv, after one evaluation of `fn`."""
    if operator.jac == "bwd":
        return _backward_product(operator)
    product = jax.linearize(operator._at, operator.x)[1]
    return lambda vector: product(vary_like(vector, varying_axes(operator.x)))


@fns.linearise.register(JacobianLinearOperator)
def _linearise(operator: JacobianLinearOperator) -> FunctionLinearOperator:
    product = _linearised_product(operator)
    return FunctionLinearOperator(product, operator.in_structure(), operator.tags)
