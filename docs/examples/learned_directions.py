"""A network on the graph of the matrix that proposes search directions.

Problems: diffusion on a grid of 8 × 8 points with coefficients that jump by two orders of magnitude. The
network is trained on the residual after 5 steps, and then tried for 20 steps on matrices that it has
not seen, beside steepest descent and its Jacobi-preconditioned version. Each step's length is exact, so
that no network can let the residual grow.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import linsolve_prim as lp

SIDE = 8


def _pattern():
    number = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    across = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], axis=1)
    down = np.stack([number[:-1].ravel(), number[1:].ravel()], axis=1)
    return np.concatenate([across, down])


PAIRS = _pattern()
ROWS = np.concatenate([PAIRS[:, 0], PAIRS[:, 1], PAIRS[:, 0], PAIRS[:, 1], np.arange(SIDE**2)])
COLUMNS = np.concatenate([PAIRS[:, 1], PAIRS[:, 0], PAIRS[:, 0], PAIRS[:, 1], np.arange(SIDE**2)])


def problem(key):
    """A graph Laplacian with random weights plus a small diagonal, and a right-hand side."""
    first, second = jax.random.split(key)
    weights = jnp.exp(1.2 * jax.random.normal(first, (len(PAIRS),)))
    values = jnp.concatenate([-weights, -weights, weights, weights, jnp.full(SIDE**2, 0.05)])
    shape = (SIDE**2, SIDE**2)
    operator = lp.SparseLinearOperator.from_coo(
        ROWS, COLUMNS, values, shape, lp.positive_semidefinite_tag
    )
    return operator, jax.random.normal(second, (SIDE**2,))


def mean_residual(solver, keys):
    """The mean of log10 ‖b − Ax‖/‖b‖ over problems."""

    def one(key):
        operator, b = problem(key)
        x = lp.solve(operator, b, solver, throw=False)
        return jnp.log10(lp.learn.residual_loss(operator, b, x)) / 2

    return jnp.mean(jax.vmap(one)(keys))


def train(rounds=200, batch=8):
    network = lp.learn.MessagePassing(jax.random.key(0), width=8, layers=3)
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, rounds))
    state = optimiser.init(network)

    @jax.jit
    def update(network, state, key):
        loss = lambda network: mean_residual(
            lp.learn.DirectionSolver(network, steps=5), jax.random.split(key, batch)
        )
        updates, state = optimiser.update(jax.grad(loss)(network), state)
        return optax.apply_updates(network, updates), state

    for key in jax.random.split(jax.random.key(1), rounds):
        network, state = update(network, state, key)
    return network


def main():
    unseen = jax.random.split(jax.random.key(2), 50)
    steepest = lambda operator, x, r, b: r
    untrained = lp.learn.MessagePassing(jax.random.key(0), width=8, layers=3)
    tried = {"steepest descent": steepest, "untrained": untrained, "trained": train()}
    found = {}
    for name, direction in tried.items():
        solver = lp.learn.DirectionSolver(direction, steps=20)
        found[name] = float(mean_residual(solver, unseen))
        print(f"{name:17} log10 of the relative residual after 20 steps: {found[name]:.2f}")
    return found


if __name__ == "__main__":
    main()
