"""`Schwarz`: overlapping parts of the unknowns, each solved exactly."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from .._static import FrozenArray, stop_gradient
from ..operators import AbstractLinearOperator
from ..sparse.pattern import SparsityPattern
from .base import AbstractPreconditioner
from .block_jacobi import local_blocks
from .clusters import clusters_of, neighbours
from .local import LocalInverses, as_labels, inverses, parts_by_label, table_of
from .parts import as_inverse_of, is_definite, sparse_form, symmetry_of, tagged

DENSE_SIZE = 128


class Schwarz(AbstractPreconditioner):
    """One level of overlapping Schwarz: dense inverses of parts of A that overlap, all at once.

    - `parts`: their number (the graph of A is cut into so many compact ones), or an array of a label for
      each unknown. Memory is the number of parts times the square of the largest.
    - `overlap`: by how many layers of neighbours parts are made larger; 0 is `BlockJacobi`.
    - `restricted`: each unknown takes the value of the part that it was in before parts were made
      larger (Cai, Sarkis 1999, doi:10.1137/S106482759732678X): fewer iterations, but not symmetric.
      None: where A is not tagged definite. If not, values are summed, which is symmetric.

    For many parts add a coarse level: `Compose(Schwarz(64), CoarseGrid(64))`.

    **Raises** `ValueError` for other numbers of parts or layers.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.TridiagonalLinearOperator(2 * jnp.ones(8), -jnp.ones(7), -jnp.ones(7))
        >>> M = lp.preconditioners.Schwarz(2, overlap=2).init(A)
        >>> bool(jnp.linalg.cond(M.as_matrix() @ A.as_matrix()) < jnp.linalg.cond(A.as_matrix()) / 4)
        True
    """

    parts: Any = eqx.field(default=16, static=True, converter=lambda x: as_labels(x, "parts"))
    overlap: int = eqx.field(default=1, static=True)
    restricted: bool | None = eqx.field(default=None, static=True)

    def __check_init__(self) -> None:
        known = isinstance(self.parts, FrozenArray)
        if not (known or (isinstance(self.parts, int) and self.parts >= 1)):
            raise ValueError(f"parts: must be a number, an int ≥ 1, or labels; got {self.parts!r}.")
        if isinstance(self.overlap, bool) or not isinstance(self.overlap, int) or self.overlap < 0:
            raise ValueError(
                f"overlap: must be a number of layers, an int ≥ 0; got {self.overlap!r}."
            )

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        operator = stop_gradient(operator)
        a = sparse_form(operator, "Schwarz", DENSE_SIZE)
        table, owned = self._tables(a.pattern)
        definite, restricted = is_definite(operator), self._restricts(operator)
        blocks = inverses(local_blocks(a, table, "Schwarz"), definite)
        after = jnp.asarray(owned, blocks.real.dtype) if restricted else None
        made = LocalInverses(blocks, jnp.asarray(table), after, None, a.pattern.shape[0])
        tags = frozenset() if restricted else symmetry_of(operator)
        return as_inverse_of(tagged(made, tags), operator)

    def _restricts(self, operator: AbstractLinearOperator) -> bool:
        return not is_definite(operator) if self.restricted is None else self.restricted

    def _tables(self, pattern: SparsityPattern) -> tuple[np.ndarray, np.ndarray]:
        """The unknowns of each part, and which of them it owns."""
        if isinstance(self.parts, FrozenArray):
            n = pattern.shape[0]
            labels, key = np.empty(n, np.int32), self.parts
            for label, part in enumerate(parts_by_label(self.parts, n, "parts")):
                labels[part] = label
        else:
            labels, key = clusters_of(pattern, self.parts), self.parts
        make = lambda: _overlapping(pattern, labels, self.overlap)
        return pattern.cached(("schwarz", key, self.overlap), make)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator) and not self._restricts(operator)


def _overlapping(
    pattern: SparsityPattern, labels: np.ndarray, overlap: int
) -> tuple[np.ndarray, np.ndarray]:
    n, count = len(labels), int(labels.max(initial=-1)) + 1
    ones = np.ones(n, np.float32)
    members = sp.csr_array((ones, (labels, np.arange(n))), shape=(count, n))
    graph = neighbours(pattern)
    for _ in range(overlap):
        members = sp.csr_array(members + members @ graph)
    members.sort_indices()
    table = table_of(np.split(members.indices, members.indptr[1:-1]), n)
    owned = np.append(labels, -1)[table] == np.arange(count)[:, None]
    return table, owned
