# %% [markdown]
# # A pendulum whose inertia is learned
#
# A double pendulum moves by Lagrange's equations, $M(q)\,\dot v = f(q, v)$: in each evaluation of the
# right-hand side there is a linear solve with the inertia matrix $M(q)$. Here a network is the inertia,
#
# $$A = \text{net}(q),\qquad M = \tfrac12(A + A^T) + (\|A\| + 1)\,I,$$
#
# symmetrised and shifted, so that it is positive definite whatever the weights are. Gravity is known,
# and a few swings were observed. The loss is differentiated through `diffrax`'s integrator and through
# every solve in it.

# %%
import diffrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import linsolve_prim as lp

jax.config.update("jax_enable_x64", True)
mass, gravity = 3.0, 9.81  # both masses; both rods have length 1


def true_inertia(q):
    c = jnp.cos(q[0] - q[1])
    return mass * jnp.array([[2.0, 1.0 * c], [1.0 * c, 1.0]])


def learned_inertia(params, q):
    """From the sines and cosines of both angles to a matrix."""
    h = jnp.concatenate([jnp.sin(q), jnp.cos(q)])
    for weights, shift in params[:-1]:
        h = jnp.tanh(h @ weights + shift)
    a = (h @ params[-1][0] + params[-1][1]).reshape(2, 2)
    return (a + a.T) / 2 + (jnp.linalg.norm(a) + 1) * jnp.eye(2)


# %% [markdown]
# ## The right-hand side
#
# With the energies $T = \frac12 v^TM(q)v$ and $V$, Lagrange's equations are
# $M\dot v = \partial_q(T - V) - \dot M v$. JAX finds the derivatives, the solve is by Cholesky.


# %%
def potential(q):
    return -mass * gravity * (2 * jnp.cos(q[0]) + jnp.cos(q[1]))


def motion(t, state, inertia):
    q, v = state
    energy = lambda q: v @ inertia(q) @ v / 2 - potential(q)
    drift = jax.jvp(lambda q: inertia(q) @ v, (q,), (v,))[1]
    operator = lp.MatrixLinearOperator(inertia(q), lp.positive_semidefinite_tag)
    force = jax.grad(energy)(q) - drift
    return v, lp.linear_solve(operator, force, lp.Cholesky(), throw=False).value


step, length = 1 / 30, 60  # two seconds


def swing(inertia, q, v, steps=length):
    """Angles and velocities after each step, from q and v."""
    times = step * jnp.arange(steps + 1)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, state, _: motion(t, state, inertia)),
        diffrax.Tsit5(),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=(q, v),
        stepsize_controller=diffrax.StepTo(ts=times),
        saveat=diffrax.SaveAt(ts=times),
        max_steps=steps,
    )
    return solution.ys


def tips(angles):
    """Where both masses are: (..., 2 masses, 2 coordinates)."""
    rods = jnp.stack([jnp.sin(angles), -jnp.cos(angles)], axis=-1)
    return jnp.cumsum(rods, axis=-2)


# %% [markdown]
# ## Training
#
# Six swings, let go from rest at up to one radian. They are cut into pieces of a third of a second, each of
# which is to be continued from how it begins. (Whole swings would be a loss full of local minima.)

# %%
seen, unseen = (jax.random.uniform(jax.random.key(k), (6, 2), minval=-1, maxval=1) for k in (0, 1))
swings_of = lambda inertia, starts: jax.vmap(lambda q: swing(inertia, q, jnp.zeros(2)))(starts)
observed = swings_of(true_inertia, seen)
piece = 10
begin = jax.tree.map(lambda s: s[:, :-1:piece].reshape(-1, 2), observed)
follow = jnp.stack([observed[0][:, k : k + piece + 1] for k in range(0, length, piece)], axis=1)
follow = follow.reshape(-1, piece + 1, 2)


def loss(params):
    inertia = lambda q: learned_inertia(params, q)
    found, _ = jax.vmap(lambda q, v: swing(inertia, q, v, piece))(*begin)
    return jnp.mean((tips(found) - tips(follow)) ** 2)


def untrained(key, sizes=(4, 16, 16, 4)):
    pairs = zip(jax.random.split(key, 3), sizes[:-1], sizes[1:])
    return [(jax.random.normal(k, (m, n)) / m**0.5, jnp.zeros(n)) for k, m, n in pairs]


first, rounds = untrained(jax.random.key(2)), 400
optimiser = optax.adam(optax.cosine_decay_schedule(2e-2, rounds))


@jax.jit
def update(params, state):
    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimiser.update(gradient, state)
    return optax.apply_updates(params, updates), state, value, gradient


params, state, losses = first, optimiser.init(first), []
for number in range(rounds):
    params, state, value, gradient = update(params, state)
    losses.append(float(value))
    if number == 0:  # the first gradient, along one direction, against a finite difference
        d = untrained(jax.random.key(3))
        slope = sum(jnp.vdot(g, e) for g, e in zip(*map(jax.tree.leaves, (gradient, d))))
        moved = lambda h: loss(jax.tree.map(lambda p, e: p + h * e, first, d))
        difference = (moved(1e-5) - moved(-1e-5)) / 2e-5
        print("gradient agrees:", bool(abs(slope - difference) < 1e-5 * abs(difference)))

# %% [markdown]
# ## What it learned
#
# Swings that it has not seen, and the inertia itself. The entry $M_{12}$ depends on $q_1 - q_2$ alone,
# which nobody told the network; where most of the swings went, it found that.

# %%
models = {
    "true": true_inertia,
    "untrained": lambda q: learned_inertia(first, q),
    "trained": lambda q: learned_inertia(params, q),
}
swings = {name: tips(swings_of(inertia, unseen)[0]) for name, inertia in models.items()}
styles = {"true": ("black", "-"), "untrained": ("tab:blue", ":"), "trained": ("tab:red", "--")}
figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained")
for ax, number in zip(axes[:2], (0, 3)):
    for name, (colour, style) in styles.items():
        ax.plot(*swings[name][number, :, 1].T, style, color=colour, label=name)
    ends = jnp.concatenate([jnp.zeros((1, 2)), swings["true"][number, 0]])
    ax.plot(*ends.T, "o-", color="grey", linewidth=1)
    ax.set(title="lower mass, unseen swing", aspect="equal")
axes[0].legend()
angles = jax.random.uniform(jax.random.key(4), (200, 2), minval=-1, maxval=1)
for name, (colour, _) in styles.items():
    entries = jax.vmap(models[name])(angles)[:, 0, 1]
    axes[2].plot(angles[:, 0] - angles[:, 1], entries, ".", color=colour, markersize=3)
axes[2].set(title="$M_{12}$ at random angles", xlabel="$q_1 - q_2$")
axes[3].semilogy(losses, color="black")
axes[3].set(title="mean squared distance", xlabel="step of Adam")
plt.show()

# %% [markdown]
# ## The number
#
# How far the masses are from where they should be, on swings that were not seen, beside the untrained
# pendulum.

# %%
distance = lambda name: float(jnp.sqrt(jnp.mean((swings[name] - swings["true"]) ** 2)))
ratio = distance("trained") / distance("untrained")
print(
    f"distance {distance('untrained'):.3f} → {distance('trained'):.4f}: {ratio:.3f} of it is left"
)
