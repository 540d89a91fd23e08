# %% [markdown]
# # Sparse systems: factorize once
#
# A factorization is the dear part of a sparse solve. Here smoke drifts over a town in 48 winds. All matrices
# have one pattern, which is analysed once; each wind has values of its own, which are factorized once; and
# the factors serve the smoke, the sensitivity of a school to all chimneys that could be built, and more. The
# registry of factors counts.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import linsolve_prim as lp

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## One pattern
#
# Concentration on a grid of 80 × 80 cells: diffusion, slow decay, and a wind, upwind. The pattern does not
# depend on the wind's direction; the values do, and are ordinary JAX.

# %%
m = 80
cell = np.arange(m * m).reshape(m, m)
neighbours = {
    "east": (cell[:, :-1], cell[:, 1:]),
    "west": (cell[:, 1:], cell[:, :-1]),
    "north": (cell[:-1], cell[1:]),
    "south": (cell[1:], cell[:-1]),
}
start = np.concatenate([a.ravel() for a, _ in neighbours.values()])
end = np.concatenate([b.ravel() for _, b in neighbours.values()])
direction = np.repeat(np.arange(4), [a.size for a, _ in neighbours.values()])
DIFFUSION, DECAY, SPEED = 0.1, 0.002, 1.0


def transport(angle):
    """The operator for a wind that blows towards `angle`."""
    along = jnp.stack([jnp.cos(angle), -jnp.cos(angle), jnp.sin(angle), -jnp.sin(angle)])
    rate = DIFFUSION + SPEED * jnp.maximum(along, 0)  # from a cell to its neighbour
    lost = jnp.full(m * m, DECAY + jnp.sum(rate))  # at the edge, out of the town
    rows = np.concatenate([end, cell.ravel()])
    columns = np.concatenate([start, cell.ravel()])
    return lp.SparseLinearOperator.from_coo(
        rows, columns, jnp.concatenate([-rate[direction], lost]), (m * m, m * m)
    )


chimney, school = (26, 22), (52, 60)
smoke = jnp.zeros((m, m)).at[chimney].set(1.0).ravel()
at_school = cell[school]

# %% [markdown]
# ## 48 winds in one go
#
# How often each wind blows is a wind rose. `vmap` over the angle makes 48 matrices.

# %%
angles = (jnp.arange(48) + 0.5) * (2 * jnp.pi / 48)
often = jnp.exp(3 * jnp.cos(angles - 0.7)) + 4 * jnp.exp(2 * jnp.cos(angles + 2.0))
often = often / often.sum()
solver = lp.RSLab()
registry = lp.host.registry
registry.budget = 1 << 30  # a GiB, so that all 48 have room; less of it is used by default


def smoke_in(angle, source):
    return lp.solve(transport(angle), source, solver)


registry.clear()
registry.reset_stats()
clouds = jax.jit(jax.vmap(smoke_in, (0, None)))(angles, smoke)
counts = registry.stats()
first = counts["factorizations"] / len(angles)
print({name: counts[name] for name in ("callbacks", "analyses", "factorizations")})

# %% [markdown]
# ## The other way round
#
# What does the school breathe, on average over the winds? And what would it breathe of a chimney anywhere
# else? The second question is the gradient by the source: one solve with the transposed matrix for each wind.
# The factors are remembered by what was factorized, so value and gradient cost no new one; a gradient
# by the wind's angles comes along.


# %%
@jax.jit
def exposure(source, angles):
    """Smoke at the school, on average."""
    return often @ jax.vmap(smoke_in, (0, None))(angles, source)[:, at_school]


registry.reset_stats()
value, (by_source, by_angles) = jax.jit(jax.value_and_grad(exposure, (0, 1)))(smoke, angles)
jax.block_until_ready(by_angles)
counts = registry.stats()
again = counts["factorizations"] / len(angles)
print({name: counts[name] for name in ("callbacks", "analyses", "factorizations", "hits")})

# %% [markdown]
# Both ways agree: the smoke of the chimney at the school is the chimney's share of the sensitivity.

# %%
duality = float(abs(by_source @ smoke / value - 1))
h = 1e-5
turned = (exposure(smoke, angles + h) - exposure(smoke, angles - h)) / (2 * h)
gradient_error = float(abs(by_angles.sum() / turned - 1))

# %% [markdown]
# ## By hand
#
# `factorize` gives the factors themselves: for many right-hand sides at once, and for other values of the same
# pattern. Here all 79 chimneys along a road, in the wind that blows most.

# %%
main_wind = transport(angles[jnp.argmax(often)])
registry.clear()
registry.reset_stats()
factors = lp.factorize(main_wind, solver)
road = np.stack([cell[k, m - 1 - k] for k in range(1, m)])
plumes = factors.solve(jnp.zeros((m * m, len(road))).at[road, jnp.arange(len(road))].set(1.0))
calmer = factors.update(0.5 * main_wind.values)  # the same analysis
twice = float(jnp.max(calmer.solve(smoke)) / jnp.max(factors.solve(smoke)))
counts = registry.stats()
print({name: counts[name] for name in ("analyses", "factorizations")}, f"{twice:.3f}")

# %% [markdown]
# ## The picture

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.5), layout="constrained")
axes[0].axis("off")
rose = axes[0].inset_axes((0.1, 0.1, 0.8, 0.8), projection="polar")
rose.bar(angles, often, width=2 * np.pi / len(angles), color="tab:blue")
rose.set(xticks=np.arange(4) * np.pi / 2, xticklabels=["E", "N", "W", "S"], yticks=[])
rose.set_title("where the wind blows to")
shown = (often @ clouds, by_source)
titles = ("smoke, on average", "of a chimney here, at the school")
for ax, field, title in zip(axes[1:], shown, titles):
    levels = field.max() * np.geomspace(3e-3, 1, 13)
    field = np.maximum(field, levels[0]).reshape(m, m)
    ax.contourf(field, levels, cmap="magma_r", norm="log")
    ax.plot(*chimney[::-1], "^", color="tab:blue", markersize=8)
    ax.plot(*school[::-1], "s", color="tab:green", markersize=7)
    ax.set(title=title, xticks=[], yticks=[], aspect="equal")
plt.show()

# %% [markdown]
# The right picture is the left one turned about: where the school is spared, a chimney may stand.
#
# ## The numbers
#
# Factorizations for each wind: one for the smoke, none for the average and its gradients. The duality of both
# pictures, and the gradient by the winds' directions beside finite differences.

# %%
print(f"{first:.0f} factorization for each wind, {again:.0f} more for values and gradients")
print(f"duality and gradient: {duality < 1e-10 and gradient_error < 1e-5}")
