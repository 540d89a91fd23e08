"""A definite and a general system, for the tests of learning through solves."""

import jax.numpy as jnp
import numpy as np

N = 20
_rng = np.random.default_rng(0)
FACTOR = _rng.normal(size=(N, N))
SPD = jnp.asarray(FACTOR @ FACTOR.T / N + np.eye(N))
GENERAL = jnp.asarray(FACTOR / 4 + np.diag(_rng.uniform(2, 4, N)))
B = jnp.asarray(_rng.normal(size=N))
