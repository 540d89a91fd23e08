"""The systems of `demo`: A(κ)u = f with an unknown field κ, from a mesh or a matrix in a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from ..sparse.operator import SparseLinearOperator
from ..sparse.pattern import SparsityPattern
from ..sparse.values import place
from .reading import BadInput, read_matrix
from .structure import is_equal

#: Where the sources are, on the two rings that the meshes' coordinates are scaled to hold.
_RINGS = ((0.9, 4), (2.1, 6))
_WIDTH = 0.6  # of a source
LARGEST = 4096  # unknowns: the penalty's matrix is dense


class Problem(NamedTuple):
    """m points carry the field, n ≤ m of them (`free`) an unknown each.

    `assemble` maps κ of shape `(m,)` to the values of A on `pattern`, differentiably. `loads` has one
    right-hand side a row, `(k, n)`. `roughness` is the matrix of the penalty, `weights` the area
    that belongs to each point, `truth` the field log κ that is looked for. If `definite`, A is
    positive definite for every κ > 0.
    """

    title: str
    points: np.ndarray
    triangles: np.ndarray | None
    free: np.ndarray
    pattern: SparsityPattern
    assemble: Callable[[jax.Array], jax.Array]
    loads: np.ndarray
    roughness: np.ndarray
    weights: np.ndarray
    truth: np.ndarray
    definite: bool
    notes: list[str]


def true_field(points: np.ndarray) -> np.ndarray:
    """log κ: a smooth background with an inclusion that conducts well, and one that does not."""
    x, y = points.T
    disc = lambda cx, cy, radius: 0.5 - 0.5 * np.tanh((np.hypot(x - cx, y - cy) - radius) / 0.15)
    background = 0.3 * np.sin(0.9 * x) * np.cos(0.7 * y)
    return background + 1.3 * disc(1.5, 0.9, 0.75) - disc(-0.9, -0.8, 0.7)


def _sources(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Bell-shaped sources on the rings, `(k, m)`."""
    radii = np.concatenate([np.full(n, radius) for radius, n in _RINGS])
    angles = np.concatenate([2 * np.pi * (np.arange(n) + 0.5) / n for _, n in _RINGS])
    centers = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    distances = np.linalg.norm(points - centers[:, None], axis=2)
    return weights * np.exp(-0.5 * (distances / _WIDTH) ** 2)


# ---- a mesh --------------------------------------------------------------------------------------


def airfoil_problem() -> Problem:
    """−div(κ grad u) = f with linear elements on PyAMG's airfoil mesh, u = 0 on its boundary."""
    try:
        import pyamg
    except ImportError:
        raise BadInput(
            "demo: its mesh comes with pyamg, which is not installed. Run `pip install "
            '"linsolve-prim[demo]"`, or pass a matrix of your own with --file.'
        ) from None
    example = pyamg.gallery.load_example("airfoil")
    problem = mesh_problem(example["vertices"], example["elements"].astype(np.int64))
    values = problem.assemble(jnp.ones(len(problem.points)))
    assembled = SparseLinearOperator(values, problem.pattern).to_scipy()
    difference = abs(assembled - example["A"]).max()
    return problem._replace(
        title="PyAMG's airfoil, linear finite elements",
        notes=[f"with κ = 1 this is PyAMG's own matrix: max |difference| = {difference:.1e}"],
    )


def mesh_problem(points: np.ndarray, triangles: np.ndarray) -> Problem:
    """The problem on any triangulation. κ lives on the vertices, and is linear on each triangle."""
    m = len(points)
    stiffness, areas = element_matrices(points, triangles)
    outer = boundary_points(triangles)
    free = np.setdiff1d(np.arange(m), outer)
    number = np.full(m, -1)  # of each point among the unknowns
    number[free] = np.arange(len(free))
    rows = np.repeat(number[triangles], 3, axis=1).ravel()
    columns = np.tile(number[triangles], (1, 3)).ravel()
    inside = np.flatnonzero((rows >= 0) & (columns >= 0))  # entries between two unknowns
    size = (len(free), len(free))
    pattern, slots = SparsityPattern.from_coo(rows[inside], columns[inside], size)
    local, corners = jnp.asarray(stiffness), jnp.asarray(triangles)

    def assemble(kappa: jax.Array) -> jax.Array:
        entries = kappa[corners].mean(axis=1)[:, None, None] * local
        return place(entries.ravel()[inside], slots, pattern, "entries")

    weights = np.bincount(triangles.ravel(), np.repeat(areas / 3, 3), minlength=m)
    return Problem(
        title="a mesh, linear finite elements",
        points=points,
        triangles=triangles,
        free=free,
        pattern=pattern,
        assemble=assemble,
        loads=_sources(points, weights)[:, free],
        roughness=_sum_elements(stiffness, triangles, m),
        weights=weights,
        truth=true_field(points),
        definite=True,
        notes=[],
    )


def element_matrices(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """∫ grad φᵢ · grad φⱼ over each triangle, `(t, 3, 3)`, and the triangles' areas."""
    corner = points[triangles]
    edges = np.roll(corner, -2, axis=1) - np.roll(corner, -1, axis=1)  # opposite to each corner
    doubled = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    areas = abs(doubled) / 2
    return np.einsum("eid,ejd->eij", edges, edges) / (4 * areas)[:, None, None], areas


def boundary_points(triangles: np.ndarray) -> np.ndarray:
    """The points of the edges that belong to one triangle only."""
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, counts = np.unique(edges, axis=0, return_counts=True)
    return np.unique(edges[counts == 1])


def _sum_elements(local: np.ndarray, triangles: np.ndarray, m: int) -> np.ndarray:
    total = np.zeros((m, m))
    np.add.at(total, (triangles[:, :, None], triangles[:, None, :]), local)
    return total


# ---- a matrix ------------------------------------------------------------------------------------


def file_problem(path: str) -> Problem:
    """A user's matrix with its couplings made unknown: aᵢⱼ·(κᵢ + κⱼ)/2 for i ≠ j, row sums kept.

    κ = 1 gives the file's matrix. Where the points lie is read from its graph.
    """
    matrix = sp.csr_array(read_matrix(path)[0])
    n = matrix.shape[0]
    _check_file(matrix, path)
    couplings = matrix - sp.diags_array(matrix.diagonal())
    row_sums = matrix.sum(axis=1)
    couplings = sp.csr_array(couplings)
    couplings.eliminate_zeros()
    couplings.sort_indices()
    entries, everyone = couplings.tocoo(), np.arange(n)
    pattern, slots = SparsityPattern.from_coo(
        np.concatenate([entries.row, everyone]), np.concatenate([entries.col, everyone]), (n, n)
    )
    fixed, sums = jnp.asarray(entries.data), jnp.asarray(row_sums)

    def assemble(kappa: jax.Array) -> jax.Array:
        scaled = fixed * (0.5 * (kappa[entries.row] + kappa[entries.col]))
        diagonal = sums.at[entries.row].add(-scaled)
        return place(jnp.concatenate([scaled, diagonal]), slots, pattern, "entries")

    # Symmetric, no positive coupling, no negative row sum: Σ −aᵢⱼ(κᵢ+κⱼ)/2·(uᵢ−uⱼ)² + Σ sᵢuᵢ² ≥ 0.
    tiny = 1e-12 * abs(matrix).max()
    definite = is_equal(matrix, matrix.T) and couplings.max() <= 0 and row_sums.min() >= -tiny
    laplacian = graph_laplacian(couplings)
    points = graph_points(laplacian)
    words = "an M-matrix: positive definite for every κ" if definite else "no M-matrix"
    return Problem(
        title=f"{path}, couplings scaled by κ",
        points=points,
        triangles=None,
        free=np.arange(n),
        pattern=pattern,
        assemble=assemble,
        loads=_sources(points, np.ones(n)),
        roughness=laplacian.toarray() / laplacian.diagonal().mean(),
        weights=np.ones(n),
        truth=true_field(points),
        definite=bool(definite),
        notes=[f"{words}; points are placed by the eigenvectors of the graph"],
    )


def _check_file(matrix: sp.csr_array, path: str) -> None:
    n, columns = matrix.shape
    if n != columns or not 3 < n <= LARGEST:
        raise BadInput(
            f"--file: must hold a square matrix of 4 to {LARGEST} unknowns; {path} is {n} x "
            f"{columns}. Take another one, or use `solve`."
        )
    if np.iscomplexobj(matrix) or not np.all(np.isfinite(matrix.data)):
        raise BadInput(
            f"--file: must hold real and finite numbers; those of {path} are not. Take another "
            "matrix, or use `solve`."
        )


def graph_laplacian(couplings: sp.csr_array) -> sp.csr_array:
    """Of the graph with an edge of weight one where aᵢⱼ or aⱼᵢ is not zero."""
    edges = (abs(couplings) + abs(couplings).T).tocsr()
    edges.eliminate_zeros()
    edges.data = np.ones_like(edges.data)
    return sp.csr_array(sp.diags_array(edges.sum(axis=1)) - edges)


def graph_points(laplacian: sp.csr_array) -> np.ndarray:
    """Two coordinates a node, from −3 to 3: the ranks in the smoothest vectors that vary."""
    n = laplacian.shape[0]
    start = np.cos(np.arange(n))  # so that every run finds the same
    shifted = laplacian + 1e-3 * sp.eye_array(n)
    _, vectors = scipy.sparse.linalg.eigsh(shifted.tocsc(), k=3, sigma=0, v0=start)
    ranks = np.argsort(np.argsort(vectors[:, :0:-1], axis=0), axis=0)
    return 6 * ranks / (n - 1) - 3
