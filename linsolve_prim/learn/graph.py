"""A matrix as a graph, and a small network on it."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._types import structure_equal, structure_str
from ..errors import StructureError
from ..operators import AbstractLinearOperator, TaggedLinearOperator
from ..operators.structures import is_vector
from ..simple import as_operator
from ..solvers.krylov.stopping import check_count
from ..sparse.operator import SparseLinearOperator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Graph:
    """The entries of a matrix as edges: `values[e]` is A[receivers[e], senders[e]].

    So y = Ax is the sum over edges, `zeros(num_nodes).at[receivers].add(values * x[senders])`.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> graph = lp.graph(jnp.array([[2.0, 1.0], [0.0, 4.0]]))
        >>> x = jnp.array([1.0, 1.0])
        >>> print(jnp.zeros(graph.num_nodes).at[graph.receivers].add(graph.values * x[graph.senders]))  # Ax
        [3. 4.]
    """

    senders: Array  # (edges,) int32: columns
    receivers: Array  # (edges,) int32: rows
    values: Array  # (edges,)
    num_nodes: int = dataclasses.field(metadata={"static": True})

    def gather(self, messages: Array) -> Array:
        """Sum what arrives at each node: `(edges, …)` to `(num_nodes, …)`."""
        shape = (self.num_nodes, *messages.shape[1:])
        return jnp.zeros(shape, messages.dtype).at[self.receivers].add(messages)

    def diagonal(self) -> Array:
        """A's diagonal, where it is in the pattern, else zeros."""
        return self.gather(jnp.where(self.senders == self.receivers, self.values, 0))


def graph(A: Any) -> Graph:
    """The graph of a square matrix's pattern: senders, receivers and edge values.

    - `A`: anything sparse, or a `SparseLinearOperator`; of a dense matrix that is known now, the
      entries that are not zero; of one that is traced, all.

    **Raises** `StructureError` if A is not a square matrix.

        >>> import scipy.sparse as sp, linsolve_prim as lp
        >>> graph = lp.graph(sp.csr_array([[2.0, 1.0], [0.0, 4.0]]))
        >>> graph.senders.tolist(), graph.receivers.tolist(), graph.values.tolist()
        ([0, 1, 1], [0, 0, 1], [2.0, 1.0, 4.0])
    """
    operator = as_operator(A, None)
    while isinstance(operator, TaggedLinearOperator):
        operator = operator.operator
    takes, gives = operator.in_structure(), operator.out_structure()
    if not (is_vector(takes) and structure_equal(takes, gives)):
        raise StructureError(
            "A: must be a square matrix, from vectors (n,) to such, to be a graph; got one from "
            f"{structure_str(takes)} to {structure_str(gives)}."
        )
    if isinstance(operator, SparseLinearOperator):
        rows, columns = operator.pattern.rows, operator.pattern.indices
        return _graph(rows, columns, operator.values, operator.in_size())
    matrix = operator.as_matrix()
    if isinstance(matrix, jax.core.Tracer):
        rows, columns = (x.ravel() for x in np.indices(matrix.shape))
    else:
        rows, columns = np.nonzero(np.asarray(matrix))
    return _graph(rows, columns, matrix[rows, columns], operator.in_size())


def _graph(rows: Any, columns: Any, values: Array, size: int) -> Graph:
    as_index = lambda x: jnp.asarray(np.asarray(x), jnp.int32)
    return Graph(as_index(columns), as_index(rows), values, size)


class MessagePassing(eqx.Module):
    """A network on the graph of A, from node features [x, r, b] to a search direction.

    Layers of messages between neighbours, h ← h + W h + Σ φ(aᵢⱼ/√|aᵢᵢaⱼⱼ|) ∘ (W′ hⱼ), in which φ is a small
    network: so the direction depends on A as on the input of a network, and on x, r and b linearly, as
    it should where the system is linear. The network sees the system with diagonal one, D^−½AD^−½, so
    that polynomials of it are among what it can learn. It adds to D⁻¹r, and adds nothing before training:
    then the direction is the Jacobi-preconditioned residual.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> network = lp.learn.MessagePassing(jax.random.key(0), width=4, layers=1)
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 4.0]]))
        >>> print(network(A, jnp.zeros(2), jnp.array([2.0, 4.0]), jnp.zeros(2)))  # D⁻¹r, before training
        [1. 1.]
    """

    encode: Array
    edges: list[tuple[Array, Array, Array]]  # of φ: φ(a) = W₂ᵀ tanh(w₁a + c)
    own: list[Array]
    neighbours: list[Array]
    decode: Array

    def __init__(self, key: Array, *, width: int = 16, layers: int = 3):
        """`key` is one of `jax.random`. **Raises** `ValueError` if the others are not positive."""
        check_count("width", width, "16")
        check_count("layers", layers, "3")
        keys = jax.random.split(key, 1 + 5 * layers)
        draw = lambda key, *shape: jax.random.normal(key, shape) / np.sqrt(shape[0])
        self.encode = draw(keys[0], 3, width)
        self.decode = jnp.zeros((width,))
        per_layer = [keys[1 + 5 * k : 6 + 5 * k] for k in range(layers)]
        self.edges = [
            (draw(k[0], 1, width)[0], draw(k[1], 1, width)[0], draw(k[2], width, width))
            for k in per_layer
        ]
        self.own = [0.3 * draw(k[3], width, width) for k in per_layer]
        self.neighbours = [0.3 * draw(k[4], width, width) for k in per_layer]

    def __call__(self, operator: AbstractLinearOperator, x: Array, r: Array, b: Array) -> Array:
        """The direction, `(n,)`, for the unknown x, its residual r and the right-hand side b."""
        web = graph(operator)
        diagonal = web.diagonal()
        size = jnp.where(diagonal == 0, 1, diagonal)
        root = jnp.sqrt(jnp.abs(size))
        scaled = web.values / (root[web.receivers] * root[web.senders])
        features = jnp.stack([x * root, r / root, b / root], axis=1)
        net = jax.tree.map(lambda w: w.astype(r.dtype), self)
        h = features @ net.encode
        for (slope, shift, mix), own, neighbour in zip(net.edges, net.own, net.neighbours):
            weights = jnp.tanh(scaled[:, None] * slope + shift) @ mix
            arriving = web.gather(weights * (h @ neighbour)[web.senders])
            h = h + h @ own + arriving
        return r / size + (h @ net.decode) / root
