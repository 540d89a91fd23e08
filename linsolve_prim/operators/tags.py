"""Tags: what the user promises about an operator. They are believed, not checked."""

from collections.abc import Callable, Iterable


class Tag:
    """A named promise. New ones are made by instantiating this class.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(4 * jnp.eye(2), lp.positive_semidefinite_tag)
        >>> lp.solve(A, jnp.ones(2)).tolist()  # by Cholesky
        [0.25, 0.25]
        >>> banded_tag = type(lp.symmetric_tag)("banded_tag")  # one of your own, kept by the transpose:
        >>> lp.transpose_tags_rules.append(lambda tags: banded_tag if banded_tag in tags else None)
        >>> lp.transpose_tags(frozenset([banded_tag]))
        frozenset({banded_tag})
        >>> rule = lp.transpose_tags_rules.pop()
    """

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return self.name


symmetric_tag = Tag("symmetric_tag")
"""A = Aᵀ (of complex A too: not Aᴴ). Implied by definite tags where A is real."""
diagonal_tag = Tag("diagonal_tag")
"""All entries off the diagonal are zero; they are never read."""
tridiagonal_tag = Tag("tridiagonal_tag")
"""Entries are zero but on the diagonal and its two neighbours; others are never read."""
unit_diagonal_tag = Tag("unit_diagonal_tag")
"""Every diagonal entry is one; `Triangular` does not read them then."""
lower_triangular_tag = Tag("lower_triangular_tag")
"""All entries above the diagonal are zero."""
upper_triangular_tag = Tag("upper_triangular_tag")
"""All entries below the diagonal are zero."""
positive_semidefinite_tag = Tag("positive_semidefinite_tag")
"""A = Aᴴ with xᴴAx ≥ 0: `Cholesky` and `CG` need this or the next."""
negative_semidefinite_tag = Tag("negative_semidefinite_tag")
"""A = Aᴴ with xᴴAx ≤ 0."""

transpose_tags_rules: list[Callable[[frozenset], object | None]] = []
"""Each rule maps the tags of an operator to one tag of its transpose, or to None.

Append to it to say how a tag of your own is transposed.
"""


def _becomes(tag: Tag, transposed: Tag) -> None:
    transpose_tags_rules.append(lambda tags: transposed if tag in tags else None)


for _tag in (
    symmetric_tag,
    unit_diagonal_tag,
    diagonal_tag,
    positive_semidefinite_tag,
    negative_semidefinite_tag,
    tridiagonal_tag,
):
    _becomes(_tag, _tag)
_becomes(lower_triangular_tag, upper_triangular_tag)
_becomes(upper_triangular_tag, lower_triangular_tag)


def transpose_tags(tags: frozenset[object]) -> frozenset[object]:
    """The tags of Aᵀ, given the tags of A. Tags without a rule are dropped.

    For example:

        >>> import linsolve_prim as lp
        >>> lp.transpose_tags(frozenset([lp.lower_triangular_tag]))
        frozenset({upper_triangular_tag})
    """
    if symmetric_tag in tags:
        return tags
    found = (rule(tags) for rule in transpose_tags_rules)
    return frozenset(tag for tag in found if tag is not None)


def as_tags(tags: object | Iterable[object]) -> frozenset[object]:
    """One tag or a collection of tags, as a frozenset."""
    if isinstance(tags, Iterable) and not isinstance(tags, str):
        return frozenset(tags)
    return frozenset([tags])
