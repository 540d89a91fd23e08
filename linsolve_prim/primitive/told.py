"""Telling the tapes that are open of a solve: at once, or when the compiled program runs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._recording import recording, tell
from .._static import split
from .._varying import vary_like, varying_axes
from ..errors import LinearSolveError
from ..host.direct import host_call
from ..results import RESULTS, Solution
from .failure import Failure
from .run import unwrap_stats


@dataclasses.dataclass(frozen=True)
class Record:
    """One solve, as a `SolveTape` keeps it.

    - `name`: what the user called it, or `None`.
    - `kind`: "forward", "tangent" or "adjoint".
    - `solver`: as one would write it.
    - `result`, `stats`: as in `Solution`; one leading axis for each `vmap`.
    - `value`: the solution, if the tape keeps values.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> with lp.SolveTape(values=True) as tape:
        ...     x = lp.solve(jnp.array([[2.0, 0.0], [0.0, 4.0]]), jnp.ones(2), name="heat")
        >>> tape["heat"].kind, tape["heat"].solver, tape["heat"].value.tolist()
        ('forward', 'LU()', [0.5, 0.25])
    """

    name: str | None
    kind: str
    solver: str
    result: RESULTS
    stats: dict[str, Any]
    value: Any = None


@contextlib.contextmanager
def telling(
    tapes: list[Any], describe: Callable[[], Failure]
) -> Iterator[Callable[[Solution], None]]:
    """Gives a function that hands a solution to the tapes. A solve that raises is told too."""

    def tell_them(solution: Solution) -> None:
        what = describe()
        value = solution.value if recording().values else None
        entry = Record(what.name, what.kind, what.solver, solution.result, solution.stats, value)
        for tape in tapes:
            tape.add(entry)

    try:
        yield tell_them
    except LinearSolveError as error:
        solution = getattr(error, "solution", None)
        if solution is not None:
            tell_them(solution)
        raise


def tell_when_run(value: Any, result: RESULTS, stats: dict[str, Any], what: Failure) -> Any:
    """`(value, result, stats)`, such that using any of it hands it to the tapes that are open then."""
    keeps_value = recording().values
    arrays, skeleton = split((result, stats, value if keeps_value else None))

    def called(*arrays: Any) -> Any:
        result, stats, value = skeleton.fill([np.array(x) for x in arrays])
        tell(Record(what.name, what.kind, what.solver, result, unwrap_stats(stats), value))
        return [np.zeros((), np.int32)]

    (told,) = host_call(called, [jax.ShapeDtypeStruct((), jnp.int32)], *arrays)
    told = vary_like(told, varying_axes(arrays))
    tie = lambda x: jnp.where(told == 0, x, jnp.zeros_like(x))
    return jax.tree.map(tie, (value, result, stats))
