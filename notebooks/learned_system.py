# %% [markdown]
# # A network that makes a linear system
#
# From a time $t$ a small network makes a matrix $A_\theta(t)$ of 100 × 100 numbers and a vector
# $b_\theta(t)$. What we look at is $x = A_\theta(t)^{-1} b_\theta(t)$: it should be a travelling wave.
# So the solve is a *layer*, and the loss is differentiated through it, end to end. Its backward pass
# is one more solve, with $A^T$ and the factors that are there already.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import linsolve_prim as lp

size, width, steps = 100, 16, 200


def untrained(key):
    keys = jax.random.split(key, 3)
    draw = lambda key, *shape: jax.random.normal(key, shape) / shape[0] ** 0.5
    return {
        "hidden": draw(keys[0], 3, width),
        "matrix": draw(keys[1], width, size * size) / size,
        "vector": draw(keys[2], width, size),
    }


def system(params, t):
    """A(t) and b(t)."""
    h = jnp.tanh(jnp.stack([t, jnp.sin(3.0 * t), jnp.ones_like(t)]) @ params["hidden"])
    matrix = (h @ params["matrix"]).reshape(size, size) + jnp.eye(size)
    return matrix, h @ params["vector"]


def wave(t):
    return jnp.sin(3 * t + jnp.linspace(0, 6, size))


def solutions(params, ts):
    return jax.vmap(lambda t: lp.solve(*system(params, t)))(ts)


def loss(params, ts):
    return jnp.mean((solutions(params, ts) - jax.vmap(wave)(ts)) ** 2)


# %% [markdown]
# ## One gradient, checked
#
# The derivative by all 160 000 weights of the matrix, along one direction, and its finite difference.

# %%
first = untrained(jax.random.key(0))
seen = jnp.linspace(-1, 1, 8)
gradient = jax.grad(loss)(first, seen)
direction = untrained(jax.random.key(1))
slope = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction))))
moved = lambda h: loss(jax.tree.map(lambda p, d: p + h * d, first, direction), seen)
difference = (moved(1e-2) - moved(-1e-2)) / 2e-2
print("gradient agrees:", bool(abs(slope - difference) < 1e-2 * abs(difference)))

# %% [markdown]
# ## Training
#
# Eight times are seen, 200 steps of Adam. Nothing tells Adam that there is a solve inside.

# %%
optimiser = optax.adam(3e-3)


@jax.jit
def update(params, state):
    value, gradient = jax.value_and_grad(loss)(params, seen)
    updates, state = optimiser.update(gradient, state)
    return optax.apply_updates(params, updates), state, value


params, state, losses = first, optimiser.init(first), []
for _ in range(steps):
    params, state, value = update(params, state)
    losses.append(float(value))

# %% [markdown]
# ## What it learned
#
# Between the times that it has seen (white lines) the wave travels on.

# %%
everywhere = jnp.linspace(-1, 1, 101)
rows = {"the wave": jax.vmap(wave)(everywhere), "untrained": solutions(first, everywhere)}
rows["trained"] = solutions(params, everywhere)
figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
for ax, (title, x) in zip(axes, rows.items()):
    ax.imshow(
        x.T,
        extent=(-1, 1, 0, size),
        aspect="auto",
        cmap="RdBu",
        vmin=-1.2,
        vmax=1.2,
        interpolation="nearest",
    )
    ax.vlines(seen, 0, size, color="white", linewidth=0.6)
    ax.set(title=title, xlabel="t", ylabel="component of x")
axes[3].semilogy(losses, color="black")
axes[3].set(title="mean squared error", xlabel="step of Adam")
plt.show()

# %% [markdown]
# ## The number
#
# How many times smaller the loss is, at the times that were seen and at those that were not.

# %%
fall = losses[0] / losses[-1]
unseen_fall = float(loss(first, everywhere) / loss(params, everywhere))
print(
    f"loss {losses[0]:.3f} → {losses[-1]:.5f}: {fall:.0f} times; between: {unseen_fall:.0f} times"
)
