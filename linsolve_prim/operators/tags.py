"""Tags: what the user promises about an operator. They are believed, not checked."""

from collections.abc import Callable, Iterable


class Tag:
    """A named promise. New ones are made by instantiating this class."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return self.name


symmetric_tag = Tag("symmetric_tag")
diagonal_tag = Tag("diagonal_tag")
tridiagonal_tag = Tag("tridiagonal_tag")
unit_diagonal_tag = Tag("unit_diagonal_tag")
lower_triangular_tag = Tag("lower_triangular_tag")
upper_triangular_tag = Tag("upper_triangular_tag")
positive_semidefinite_tag = Tag("positive_semidefinite_tag")
negative_semidefinite_tag = Tag("negative_semidefinite_tag")

#: Each rule maps the tags of an operator to one tag of its transpose, or to None.
#: Append to it to say how a tag of your own is transposed.
transpose_tags_rules: list[Callable[[frozenset], object | None]] = []


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
    """The tags of Aᵀ, given the tags of A. Tags without a rule are dropped."""
    if symmetric_tag in tags:
        return tags
    found = (rule(tags) for rule in transpose_tags_rules)
    return frozenset(tag for tag in found if tag is not None)


def as_tags(tags: object | Iterable[object]) -> frozenset[object]:
    """One tag or a collection of tags, as a frozenset."""
    if isinstance(tags, Iterable) and not isinstance(tags, str):
        return frozenset(tags)
    return frozenset([tags])
