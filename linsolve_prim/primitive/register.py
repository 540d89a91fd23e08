"""All rules of `linear_solve_p`, in one place. (Evaluation and typing: `definition.py`.)

`jax.interpreters.{ad, batching, mlir, partial_eval}` are public, though JAX promises little about them; nothing
else in this package imports them outside of this folder. Should they go, `jax.custom_derivatives`
with `jax.lax.custom_linear_solve` would replace the rules, at the price of the statistics. (Without
`dce_rules` more would be lowered, and nothing else change.)
"""

import functools
from typing import Any

from jax.interpreters import ad, batching, mlir, partial_eval

from .definition import linear_solve_p, lowered
from .groups import on_one_device
from .rules_batching import batching_rule
from .rules_dce import dce_rule
from .rules_jvp import jvp_rule
from .rules_transpose import transpose_rule

ad.primitive_jvps[linear_solve_p] = jvp_rule
ad.primitive_transposes[linear_solve_p] = transpose_rule
batching.fancy_primitive_batchers[linear_solve_p] = batching_rule
getattr(partial_eval, "dce_rules", {})[linear_solve_p] = dce_rule
mlir.register_lowering(linear_solve_p, mlir.lower_fun(lowered, multiple_results=True))


def _lowering_on_cpu(ctx: Any, *args: Any, **params: Any) -> Any:
    grouped = functools.partial(lowered, grouped=on_one_device(ctx.module_context.axis_context))
    return mlir.lower_fun(grouped, multiple_results=True)(ctx, *args, **params)


mlir.register_lowering(linear_solve_p, _lowering_on_cpu, platform="cpu")
