"""Unknowns in compact groups, from the graph of a pattern. NumPy and SciPy, once for a pattern."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import scipy.sparse.csgraph as csgraph

from ..sparse.pattern import SparsityPattern


def clusters_of(pattern: SparsityPattern, count: int) -> np.ndarray:
    """A label from 0 to `count` − 1 for each unknown: neighbours together, groups of similar size.

    By recursive bisection of the graph of A + Aᵀ: unknowns in the order of a breadth-first search from
    one that is far from others are cut in two (George, Liu, "Computer solution of large sparse positive
    definite systems", 1981, section 4.3 for such starting points).
    """
    count = max(1, min(count, pattern.shape[0]))
    return pattern.cached(("clusters", count), lambda: _bisected(pattern, count))


def neighbours(pattern: SparsityPattern) -> sp.csr_array:
    """The graph of A + Aᵀ, with ones."""
    ones = np.ones(pattern.nnz, np.float32)
    a = sp.csr_array((ones, pattern.indices, pattern.indptr), shape=pattern.shape)
    both = sp.csr_array(a + a.T)
    both.data[:] = 1
    return both


def _bisected(pattern: SparsityPattern, count: int) -> np.ndarray:
    labels = np.zeros(pattern.shape[0], np.int32)
    left = [(neighbours(pattern), np.arange(pattern.shape[0]), 0, count)]
    while left:  # a graph, its unknowns, the first label and the number of labels for them
        graph, nodes, first, labels_left = left.pop()
        if labels_left == 1:
            labels[nodes] = first
            continue
        order = _search(graph, _search(graph, 0)[-1])
        half = labels_left // 2
        cut = len(nodes) * half // labels_left
        for part, label, number in (
            (np.sort(order[:cut]), first, half),
            (np.sort(order[cut:]), first + half, labels_left - half),
        ):
            left.append((graph[part][:, part], nodes[part], label, number))
    return labels


def _search(graph: sp.csr_array, start: int) -> np.ndarray:
    """All nodes in the order of a breadth-first search, those that it does not reach at the end."""
    found = csgraph.breadth_first_order(graph, start, directed=False, return_predecessors=False)
    if len(found) == graph.shape[0]:
        return found
    rest = np.setdiff1d(np.arange(graph.shape[0]), found)
    return np.concatenate([rest, found])
