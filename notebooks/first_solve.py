# %% [markdown]
# # First solve: one system, its gradient, and what it is good for
#
# A rod of varying conductivity $k(s)$ is heated; its temperature $u$ solves the tridiagonal
# system $A(k)\,u = f$.
# We solve it, ask how the solve went, differentiate it, and then turn it round: from noisy
# temperatures we find $k$.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import linsolve_prim as lp

n = 60
s = np.linspace(0, 1, n + 1)  # cell faces; temperatures live between them
true_k = jnp.asarray(1.0 + 0.8 * np.exp(-(((s - 0.35) / 0.12) ** 2)) - 0.4 * (s > 0.7))
f = jnp.ones(n)


def rod(k):
    """The operator -d/ds k d/ds on n cells, with temperature 0 at both ends."""
    return lp.TridiagonalLinearOperator(
        n**2 * (k[:-1] + k[1:]), -(n**2) * k[1:-1], -(n**2) * k[1:-1]
    )


# %% [markdown]
# ## Solve
#
# `linear_solve` chooses by structure (here elimination in O(n)), and tells how it went. `explain`
# says why.

# %%
operator = rod(true_k)
print(lp.explain(operator))
solution = lp.linear_solve(operator, f)
print("result ok:", bool(solution.result == lp.RESULTS.successful))
print("relative residual below 1e-4:", bool(solution.stats["relative_residual"] < 1e-4))


# %% [markdown]
# ## Differentiate
#
# The gradient of any function of the solution is one more solve with the transposed operator; its
# cotangent falls on the three
# diagonals, and through them on $k$. A finite difference agrees.


# %%
def middle_temperature(k):
    return lp.linear_solve(rod(k), f).value[n // 2]


gradient = jax.grad(middle_temperature)(true_k)
step = 1e-2 * jnp.sin(jnp.arange(n + 1.0))
difference = (middle_temperature(true_k + step) - middle_temperature(true_k - step)) / 2
print("gradient agrees:", bool(abs(gradient @ step - difference) < 2e-2 * abs(difference)))

# %% [markdown]
# ## Turn it round
#
# Three heat sources at once (`vmap` over the right-hand side: one operator), noisy observations,
# and L-BFGS on the gradient of the misfit.

# %%
sources = jnp.asarray([np.ones(n), 2 * s[1:], 2 - 2 * s[1:]])
solve_all = lambda k: jax.vmap(lambda f: lp.linear_solve(rod(k), f).value)(sources)
noise = 1e-4 * np.random.default_rng(0).normal(size=(3, n))
observed = solve_all(true_k) + jnp.asarray(noise)


@jax.jit
def misfit(log_k):
    rough = jnp.sum(jnp.diff(log_k) ** 2)
    return jnp.mean((solve_all(jnp.exp(log_k)) - observed) ** 2) / 1e-8 + 0.5 * rough


value_and_gradient = jax.value_and_grad(misfit)
fit = scipy.optimize.minimize(
    lambda p: [np.asarray(v, np.float64) for v in value_and_gradient(jnp.asarray(p))],
    np.zeros(n + 1),
    jac=True,
    method="L-BFGS-B",
    options={"maxiter": 400},
)
found_k = np.exp(fit.x)
error = float(np.linalg.norm(found_k - true_k) / np.linalg.norm(true_k))
print(f"relative error of the conductivity found below 10 %: {error < 0.1}")

# %%
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.plot(s[1:] - 0.5 / n, np.asarray(observed).T, ".", markersize=2)
left.set(title="observed temperatures", xlabel="s")
right.plot(s, true_k, label="true")
right.plot(s, found_k, "--", label="found")
right.set(title=f"conductivity (error {100 * error:.1f} %)", xlabel="s")
right.legend()
figure.tight_layout()
plt.show()
