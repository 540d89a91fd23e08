"""A network that makes a matrix and a right-hand side, trained through the solve (end to end).

From a parameter t a small network makes A(t), 100 × 100, and b(t); what is compared with the target is
x(t) = A(t)⁻¹b(t). The gradient of the solve is one solve with Aᵀ, whatever the solver.
"""

import jax
import jax.numpy as jnp
import optax

import linsolve_prim as lp

SIZE, WIDTH = 100, 16


def untrained(key):
    keys = jax.random.split(key, 3)
    draw = lambda key, *shape: jax.random.normal(key, shape) / shape[0] ** 0.5
    return {
        "hidden": draw(keys[0], 3, WIDTH),
        "matrix": draw(keys[1], WIDTH, SIZE * SIZE) / SIZE,
        "vector": draw(keys[2], WIDTH, SIZE),
    }


def system(params, t):
    """A(t) and b(t)."""
    h = jnp.tanh(jnp.stack([t, jnp.sin(3.0 * t), jnp.ones_like(t)]) @ params["hidden"])
    matrix = (h @ params["matrix"]).reshape(SIZE, SIZE) + jnp.eye(SIZE)
    return matrix, h @ params["vector"]


def target(t):
    return jnp.sin(t + jnp.linspace(0, 3, SIZE))


def loss(params, ts):
    one = lambda t: jnp.mean((lp.solve(*system(params, t), throw=False) - target(t)) ** 2)
    return jnp.mean(jax.vmap(one)(ts))


def main(rounds=200):
    params, optimiser = untrained(jax.random.key(0)), optax.adam(3e-3)
    state = optimiser.init(params)
    ts = jnp.linspace(-1, 1, 8)

    @jax.jit
    def update(params, state):
        value, gradient = jax.value_and_grad(loss)(params, ts)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for _ in range(rounds):
        params, state, value = update(params, state)
        losses.append(float(value))
    print(f"loss {losses[0]:.3e} → {losses[-1]:.3e} in {rounds} steps")
    return losses


if __name__ == "__main__":
    main()
