"""Type aliases and dtype helpers that every layer uses."""

import functools
import math
from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .errors import WrongTypeError

Structure = PyTree[jax.ShapeDtypeStruct]
Options = dict[str, Any]
Norm = Callable[[PyTree[Array]], Array]


class _Sentinel:
    """A value that no user passes: `state=sentinel` means "make the state yourself"."""

    def __repr__(self) -> str:
        return "<not given>"


sentinel: Final = _Sentinel()


def is_array(x: Any) -> bool:
    """JAX arrays, tracers and NumPy arrays: everything that travels as an operand."""
    return isinstance(x, (jax.Array, np.ndarray, np.generic))


def is_inexact(x: Any) -> bool:
    """Whether `x` (array or `jax.ShapeDtypeStruct`) has a floating-point or complex dtype."""
    return jnp.issubdtype(x.dtype, jnp.inexact)


def default_floating_dtype() -> Any:
    """float64 if `jax_enable_x64` is set, else float32.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> lp.internal.default_floating_dtype() == jnp.zeros(()).dtype
        True
    """
    return jax.dtypes.canonicalize_dtype(np.float64)


def complex_to_real_dtype(dtype: Any) -> Any:
    """The dtype of `abs(x)` for `x` of the given inexact dtype.

    For example:

        >>> import numpy as np, linsolve_prim as lp
        >>> lp.internal.complex_to_real_dtype(np.complex64).name
        'float32'
    """
    return jnp.finfo(dtype).dtype


def inexact_asarray(x: Any) -> Array:
    """`jnp.asarray`, with integers and booleans promoted to the default float dtype.

    NumPy arrays may be in the byte order of another machine, as files are.
    """
    if isinstance(x, jax.Array) and is_inexact(x):
        return x
    if isinstance(x, (list, tuple)):
        x = np.asarray(x)
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        x = x.astype(x.dtype.newbyteorder("="))
    dtype = jnp.result_type(x)
    return jnp.asarray(x, dtype if jnp.issubdtype(dtype, jnp.inexact) else default_floating_dtype())


def common_dtype(*dtypes: Any) -> Any:
    """The dtype that holds all of these, also where `jax_numpy_dtype_promotion` is "strict".

    Whoever calls it says in the documentation, or by a warning, what is promoted.
    """
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, dtypes)


def structure_of(x: PyTree) -> Structure:
    """Shapes and dtypes of a pytree of arrays (or of `jax.ShapeDtypeStruct`s), weak types dropped."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), x)


def structure_equal(x: PyTree, y: PyTree) -> bool:
    """Whether two pytrees of arrays or `jax.ShapeDtypeStruct`s agree in tree, shapes and dtypes."""
    x_leaves, x_def = jax.tree.flatten(x)
    y_leaves, y_def = jax.tree.flatten(y)
    return x_def == y_def and all(
        jnp.shape(a) == jnp.shape(b) and jnp.result_type(a) == jnp.result_type(b)
        for a, b in zip(x_leaves, y_leaves)
    )


def check_args(args: Any) -> None:
    """Refuse further arguments of a function that are not in a tuple: an array would be taken apart."""
    if not isinstance(args, (tuple, list)):
        raise WrongTypeError(
            "args: must be a tuple of the further arguments of the function; got "
            f"{type(args).__name__}. Write one alone as `args=(value,)`."
        )


def same_shapes(x: PyTree, y: PyTree) -> bool:
    """Whether two pytrees agree in tree and shapes, whatever their dtypes."""
    x_leaves, x_def = jax.tree.flatten(x)
    y_leaves, y_def = jax.tree.flatten(y)
    return x_def == y_def and [*map(jnp.shape, x_leaves)] == [*map(jnp.shape, y_leaves)]


def structure_size(structure: Structure) -> int:
    """Number of scalars in a structure."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(structure))


def structure_str(x: PyTree) -> str:
    """A structure as people write it: `float32[3]`, `{'u': float64[2,2], 'p': float64[5]}`."""

    class Text:
        def __init__(self, a: Any):
            dims = ",".join(str(d) for d in jnp.shape(a))
            self.text = f"{jnp.result_type(a)}[{dims}]"

        def __repr__(self) -> str:
            return self.text

    return repr(jax.tree.map(Text, x))
