# %% [markdown]
# # Finding conductivity from temperatures
#
# A plate of unknown conductivity $k(x, y)$ is held at temperature 0 along its border and heated in nine
# ways, one after the other. Few thermometers tell what happens. Which $k$ explains them?
#
# Each guess of $k$ makes a sparse matrix, which is factorized **once** by a library on the host: for nine
# right-hand sides, and for the nine adjoint solves of the gradient. `lp.minimize` does the rest.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import linsolve_prim as lp

jax.config.update("jax_enable_x64", True)
n = 48
x, y = np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2, indexing="ij")

# %% [markdown]
# ## The matrix
#
# $-\nabla\cdot(k\nabla u)$ by finite volumes: two cells exchange heat over the harmonic mean of their
# conductivities. Where the entries are is known beforehand (a static `SparsityPattern`); what they are
# follows $k$, and is differentiated.

# %%
cell = np.arange(n * n).reshape(n, n)
pairs = [(cell[1:], cell[:-1]), (cell[:, 1:], cell[:, :-1])]
left, right = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
border = sum((edge == end).astype(float) for edge in np.indices((n, n)) for end in (0, n - 1))
rows = np.concatenate([left, right, left, right, cell.ravel()])
columns = np.concatenate([right, left, left, right, cell.ravel()])


def plate(log_k):
    """The operator for conductivity exp(log_k), a vector of n² cells."""
    k = jnp.exp(log_k)
    flow = 2 * k[left] * k[right] / (k[left] + k[right])
    values = jnp.concatenate([-flow, -flow, flow, flow, 2 * k * border.ravel()])
    return lp.SparseLinearOperator.from_coo(rows, columns, values, (n * n, n * n))


spots = [(a, b) for a in (0.2, 0.5, 0.8) for b in (0.2, 0.5, 0.8)]
heat = np.stack([np.exp(-(((x - a) ** 2 + (y - b) ** 2) / 0.02)).ravel() for a, b in spots])
sensors = cell[2::4, 2::4].ravel()


@jax.jit
def temperatures(log_k):
    """All cells, for each of the nine ways of heating."""
    operator = plate(log_k)
    return jax.vmap(lambda f: lp.linear_solve(operator, f, lp.SuperLU()).value)(jnp.asarray(heat))


# %% [markdown]
# ## What is measured
#
# 144 thermometers, with an error of 0.5 % of the highest temperature.

# %%
ring = np.abs(np.hypot(x - 0.42, y - 0.57) - 0.25) < 0.06
block = (np.abs(x - 0.78) < 0.12) & (np.abs(y - 0.22) < 0.1)
true_log_k = (1.2 * ring - 1.2 * block).ravel()
exact = temperatures(jnp.asarray(true_log_k))[:, sensors]
noise = 0.005 * float(exact.max())
measured = exact + noise * np.random.default_rng(0).normal(size=exact.shape)

# %% [markdown]
# ## The fit
#
# Misfit in units of the noise, plus total variation (rounded at the corner): $k$ is expected to be
# constant in places.


# %%
@jax.jit
def objective(log_k):
    misfit = jnp.sum(((temperatures(log_k)[:, sensors] - measured) / noise) ** 2) / 2
    jumps = log_k[left] - log_k[right]
    return misfit + 2.0 * jnp.sum(jnp.sqrt(jumps**2 + 0.03**2) - 0.03)


lp.host.registry.reset_stats()
start = jnp.zeros(n * n)
fit = lp.minimize(objective, start, "L-BFGS-B", rtol=1e-3, max_steps=300, throw=False)
found = np.asarray(fit.value)
evaluations = int(fit.stats["evaluations"])
counts = lp.host.registry.stats()
solves = 2 * len(heat) * evaluations  # the nine systems, and their adjoints
print(f"{evaluations} gradients, {solves} solves, {counts['factorizations']} factorizations")

# %%
figure, axes = plt.subplots(1, 4, figsize=(14, 3.4), layout="constrained")
fields = {
    "true log k": true_log_k,
    "found log k": found,
    "difference": found - true_log_k,
}
for ax, (title, field) in zip(axes, fields.items()):
    image = ax.imshow(field.reshape(n, n).T, origin="lower", cmap="PuOr_r", vmin=-1.5, vmax=1.5)
    ax.set_title(title)
    ax.axis("off")
figure.colorbar(image, ax=axes[:3], shrink=0.8)
warm = np.asarray(temperatures(fit.value)[4]).reshape(n, n)
axes[3].imshow(warm.T, origin="lower", cmap="inferno")
axes[3].plot(*np.unravel_index(sensors, (n, n)), ".", color="white", markersize=2)
axes[3].set_title("temperature, fifth way; thermometers")
axes[3].axis("off")
plt.show()

# %% [markdown]
# ## The number
#
# The error of $\log k$ beside its own size, and how often a matrix was factorized for each gradient.

# %%
error = float(np.linalg.norm(found - true_log_k) / np.linalg.norm(true_log_k))
factorizations = counts["factorizations"] / evaluations
print(f"relative error {error:.2f}; {factorizations:.2f} factorizations for each gradient")
