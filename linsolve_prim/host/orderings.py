"""Orderings that keep factors sparse, of libraries that are installed for them alone."""

from __future__ import annotations

import threading

import numpy as np
import scipy.sparse as sp

from ..sparse.pattern import SparsityPattern
from .available import has_module, require

_lock = threading.Lock()  # METIS keeps its random numbers in one place


def has_metis() -> bool:
    return has_module("pymetis")


def metis(pattern: SparsityPattern) -> np.ndarray:
    """Nested dissection of A + Aᵀ by METIS (Karypis & Kumar 1998, doi:10.1137/S1064827595287997).

    The unknown that comes at each place, `(n,)`. Made once for a pattern.

    **Raises** `ImportError`, with the remedy, if `pymetis` is not installed.
    """
    module = require("METIS", "pymetis")

    def make() -> np.ndarray:
        ones = np.ones(pattern.nnz, np.int8)
        graph = sp.csr_array((ones, pattern.indices, pattern.indptr), shape=pattern.shape)
        if not pattern.is_symmetric():
            graph = graph + graph.T
        edges = (graph - sp.diags_array(graph.diagonal(), dtype=np.int8)).tocsr()
        edges.eliminate_zeros()
        if not edges.nnz:
            return np.arange(pattern.shape[0], dtype=pattern.indices.dtype)
        with _lock:
            order, _ = module.nested_dissection(module.CSRAdjacency(edges.indptr, edges.indices))
        return np.array(order, pattern.indices.dtype)

    found: np.ndarray = pattern.cached("metis", make)
    return found
