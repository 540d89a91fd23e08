# %% [markdown]
# # A network that corrects a flow solver, trained through its pressure solve
#
# A solver on a coarse grid loses the small eddies. A small U-Net adds to the velocity what is missing,
# *before* the pressure projection, which removes all divergence from it. So the loss of several time steps
# is differentiated through several linear solves,
#
# $$-\Delta p = -\nabla\cdot u^*,\qquad u = u^* - \nabla p,$$
#
# of a singular matrix: constants are its null space, as `CG(nullspace="constant")` is told.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from jax.scipy.ndimage import map_coordinates

import linsolve_prim as lp

n, dt, duration = 32, 0.5, 50  # the coarse grid is periodic, of n × n cells of size 1


# %% [markdown]
# ## The flow solver
#
# Velocities live on the faces of cells: `v[0]` on the left ones, `v[1]` on the lower ones. They are moved
# along themselves (semi-Lagrangian advection), and then projected.


# %%
def divergence(v):
    return jnp.roll(v[0], -1, 0) - v[0] + jnp.roll(v[1], -1, 1) - v[1]


def gradient(p):
    return jnp.stack([p - jnp.roll(p, 1, 0), p - jnp.roll(p, 1, 1)])


def project(v):
    """The nearest velocity without divergence."""
    minus_laplace = lp.FunctionLinearOperator(
        lambda p: -divergence(gradient(p)), v[0], lp.positive_semidefinite_tag
    )
    pressure = lp.linear_solve(minus_laplace, -divergence(v), lp.CG(1e-5, nullspace="constant"))
    return v - gradient(pressure.value)


def advect(v, dt):
    """Each face takes the velocity from where its fluid comes from; dt in cells per velocity."""
    grid = jnp.stack(jnp.meshgrid(*[jnp.arange(v.shape[1], dtype=v.dtype)] * 2, indexing="ij"))
    mean = lambda w, a, b: (
        (w + jnp.roll(w, a, 0) + jnp.roll(w, b, 1) + jnp.roll(w, (a, b), (0, 1))) / 4
    )
    at_faces = jnp.stack([v[0], mean(v[1], 1, -1)]), jnp.stack([mean(v[0], -1, 1), v[1]])
    take = lambda w, velocity: map_coordinates(w, list(grid - dt * velocity), 1, mode="wrap")
    return jnp.stack([take(w, velocity) for w, velocity in zip(v, at_faces)])


def coarse_step(v, correction=lambda v: 0.0):
    v = advect(v, dt)
    return project(v + correction(v))


# %% [markdown]
# ## The truth
#
# The same solver with twice as many cells each way and half the time step, seen on the coarse grid. Sixteen
# flows from random eddies: twelve to learn from, four to be tried on.


# %%
def eddies(key):
    """A random velocity on the fine grid, of waves up to number 5, without divergence."""
    waves = jnp.arange(-5, 6)
    decay = 1 / (1 + waves[:, None] ** 2 + waves**2)
    parts = jax.random.normal(key, (2, 11, 11)) * decay
    wave = jnp.exp(2j * jnp.pi * waves[:, None] * jnp.arange(2 * n) / (2 * n))
    stream = jnp.real(wave.T @ (parts[0] + 1j * parts[1]) @ wave)
    v = jnp.stack([jnp.roll(stream, -1, 1) - stream, stream - jnp.roll(stream, -1, 0)])
    return v / jnp.std(v)


def fine_step(v):
    for _ in range(2):
        v = project(advect(v, dt))  # half the time, in cells of half the size
    return v


def coarsened(v):
    """Mean velocities through the faces of the coarse grid: their divergence stays zero."""
    left, lower = v[0][::2], v[1][:, ::2]
    return jnp.stack([(left[:, ::2] + left[:, 1::2]) / 2, (lower[::2] + lower[1::2]) / 2])


def trajectory(step, v, see=lambda v: v):
    """v and what it becomes, `duration` times."""
    return jax.lax.scan(lambda v, _: (step(v), see(v)), v, length=duration + 1)[1]


starts = jax.vmap(eddies)(jax.random.split(jax.random.key(0), 16))
truth = jax.jit(jax.vmap(lambda v: trajectory(fine_step, v, coarsened)))(starts)
seen, unseen = truth[:12], truth[12:]

# %% [markdown]
# ## The network
#
# Two levels, eight channels, periodic convolutions. The last layer begins at zero: before training this is
# the coarse solver.


# %%
def convolve(x, weights):
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)), mode="wrap")
    return jax.lax.conv_general_dilated(padded[None], weights, (1, 1), "VALID")[0]


def network(params, v):
    """(2, n, n) to (2, n, n)."""
    high = jnp.tanh(convolve(v, params["in"]))
    low = high.reshape(8, n // 2, 2, n // 2, 2).mean((2, 4))
    low = jnp.tanh(convolve(low, params["low"]))
    both = jnp.concatenate([high, jnp.repeat(jnp.repeat(low, 2, 1), 2, 2)])
    return convolve(jnp.tanh(convolve(both, params["both"])), params["out"])


def untrained(key):
    shapes = {"in": (8, 2, 3, 3), "low": (8, 8, 3, 3), "both": (8, 16, 3, 3)}
    keys = jax.random.split(key, len(shapes))
    draw = lambda key, shape: jax.random.normal(key, shape) / (9 * shape[1]) ** 0.5
    params = {name: draw(key, shape) for key, (name, shape) in zip(keys, shapes.items())}
    return params | {"out": jnp.zeros((2, 8, 3, 3))}


# %% [markdown]
# ## Training
#
# Pieces of four steps, from random moments of the twelve flows. `jax.grad` sees four solves in a row.

# %%
ahead, rounds = 4, 300


def loss(params, piece):
    step = lambda v: coarse_step(v, lambda v: network(params, v))
    found = jax.lax.scan(lambda v, _: (step(v),) * 2, piece[0], length=ahead)[1]
    return jnp.mean((found - piece[1:]) ** 2)


def pieces(key, batch=4):
    first, second = jax.random.split(key)
    flows = jax.random.randint(first, (batch,), 0, len(seen))
    moments = jax.random.randint(second, (batch,), 0, duration - ahead)
    cut = lambda flow, moment: jax.lax.dynamic_slice_in_dim(seen[flow], moment, ahead + 1)
    return jax.vmap(cut)(flows, moments)


optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, rounds))


@jax.jit
def update(params, state, key):
    mean_loss = lambda params: jnp.mean(jax.vmap(lambda p: loss(params, p))(pieces(key)))
    value, gradient = jax.value_and_grad(mean_loss)(params)
    updates, state = optimiser.update(gradient, state)
    return optax.apply_updates(params, updates), state, value


params = untrained(jax.random.key(1))
state, losses = optimiser.init(params), []
for key in jax.random.split(jax.random.key(2), rounds):
    params, state, value = update(params, state, key)
    losses.append(float(value))

# %% [markdown]
# ## Four flows that it has not seen
#
# It was trained on four steps, and now runs for fifty.

# %%
correction = lambda v: network(params, v)
solvers = {"coarse": coarse_step, "corrected": lambda v: coarse_step(v, correction)}
flows = {
    name: jax.jit(jax.vmap(lambda v, step=step: trajectory(step, v)))(unseen[:, 0])
    for name, step in solvers.items()
}
size = jnp.sqrt(jnp.sum(unseen**2, (2, 3, 4)))
errors = {name: jnp.sqrt(jnp.sum((v - unseen) ** 2, (2, 3, 4))) / size for name, v in flows.items()}

vorticity = lambda v: v[1] - jnp.roll(v[1], 1, 0) - v[0] + jnp.roll(v[0], 1, 1)
figure, axes = plt.subplots(1, 5, figsize=(15, 3.1), layout="constrained")
shown = {"at first": unseen[0, 0], "truth after 50 steps": unseen[0, -1]}
shown |= {f"{name} solver": v[0, -1] for name, v in flows.items()}
for ax, (title, v) in zip(axes, shown.items()):
    ax.imshow(vorticity(v).T, origin="lower", cmap="RdBu", vmin=-0.8, vmax=0.8)
    ax.set_title(title)
    ax.axis("off")
for name, error in errors.items():
    axes[4].plot(error.mean(0), label=name)
axes[4].set(title="relative error of velocity", xlabel="step")
axes[4].legend()
plt.show()

# %% [markdown]
# ## The number
#
# The error of the corrected solver after 50 steps beside that of the coarse one; and the divergence that is
# left, which no network can bring in.

# %%
ratio = float(errors["corrected"][:, -1].mean() / errors["coarse"][:, -1].mean())
left_over = float(jnp.abs(jax.vmap(divergence)(flows["corrected"][:, -1])).max())
print(f"{ratio:.2f} of the error is left; divergence at most {left_over:.1e}")
