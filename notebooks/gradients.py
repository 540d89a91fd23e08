# %% [markdown]
# # The gradient of a solution is not the gradient of the iterations
#
# A plate of conductivity $k$ is heated near one corner and loses heat everywhere. How does the temperature at
# a sensor depend on $k$ in each cell? With $A(k)\,u = f$ and $\ell(u)$ the reading, the answer is one
# more solve:
#
# $$ A^T\lambda = \partial\ell/\partial u, \qquad \mathrm d\ell = -\lambda^T\, \mathrm dA\; u. $$
#
# An iteration finds $u$, and is stopped at some point. Then there are four things that can be called the
# gradient; `adjoint=` chooses. We look at how wrong each is, against the work it takes.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import linsolve_prim as lp

jax.config.update("jax_enable_x64", True)
n = 32
x, y = np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2, indexing="ij")
cell = np.arange(n * n).reshape(n, n)
pairs = [(cell[1:], cell[:-1]), (cell[:, 1:], cell[:, :-1])]
left, right = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
rows = np.concatenate([left, right, left, right, cell.ravel()])
columns = np.concatenate([right, left, left, right, cell.ravel()])


def plate(log_k):
    """The operator -∇·k∇ + 1/5, in units of a cell, for log k in each of n² cells."""
    k = jnp.exp(log_k)
    flow = 2 * k[left] * k[right] / (k[left] + k[right])
    values = jnp.concatenate([-flow, -flow, flow, flow, jnp.full(n * n, 1 / 5)])
    shape, definite = (n * n, n * n), lp.positive_semidefinite_tag
    return lp.SparseLinearOperator.from_coo(rows, columns, values, shape, tags=definite)


heat = jnp.asarray(np.exp(-((x - 0.3) ** 2 + (y - 0.3) ** 2) / 0.01).ravel())
sensor = np.exp(-((x - 0.6) ** 2 + (y - 0.6) ** 2) / 0.005).ravel()
log_k = jnp.asarray(0.8 * np.sin(7 * x + 2) * np.sin(5 * y)).ravel()


def reading(log_k, solver, adjoint=None):
    return sensor @ lp.linear_solve(plate(log_k), heat, solver, adjoint=adjoint).value


exact = jax.grad(reading)(log_k, lp.SuperLU())
error = lambda g: float(jnp.linalg.norm(g - exact) / jnp.linalg.norm(exact))

# %% [markdown]
# ## Implicit: what you get if you say nothing
#
# The derivative of the *solution*, by a second solve. Both solves have errors of the size of the tolerance,
# and so has the gradient. (Tolerances may be traced: this is compiled once.)


# %%
@jax.jit
def implicit(log_k, rtol):
    solver = lp.CG(rtol=rtol, atol=0)
    steps = lp.linear_solve(plate(log_k), heat, solver).stats["num_steps"]
    return steps, jax.grad(reading)(log_k, solver)


found = [implicit(log_k, rtol) for rtol in np.logspace(-1, -10, 10)]
curves = {"implicit": [(int(steps), error(g)) for steps, g in found]}

# %% [markdown]
# ## Unrolled: what automatic differentiation of a loop gives
#
# The derivative of the *iterations*. CG takes the best $u$ from the Krylov space of $A$ and $f$; for a smooth
# $f$ that space changes wildly with $A$, in directions that hardly matter for $u$. In its derivative they do.

# %%
fields = {}
for steps in (5, 10, 20, 40, 80, 120):
    solver, unrolled = lp.CG(rtol=0, atol=0, max_steps=steps), lp.UnrolledAdjoint(steps)
    fields[steps] = jax.jit(jax.grad(lambda p: reading(p, solver, unrolled)))(log_k)
curves["unrolled"] = [(steps, error(g)) for steps, g in fields.items()]

twenty = lp.CG(rtol=0, atol=0, max_steps=20)
loop = jax.jit(lambda p: reading(p, twenty))
direction = np.random.default_rng(0).normal(size=n * n)
difference = (loop(log_k + 1e-8 * direction) - loop(log_k - 1e-8 * direction)) / 2e-8
slope = fields[20] @ direction
print("it is the derivative of 20 steps:", bool(abs(slope - difference) < 1e-2 * abs(difference)))

# %% [markdown]
# ## One step, or a few: cheap, and as good as the preconditioner
#
# At the solution, differentiate $u \leftarrow u + M(f - Au)$: the error is $\|I - MA\|$ to the power of the
# number of steps. Here $M$ is an incomplete Cholesky factorization. One step is a direction of descent.

# %%
M = lp.preconditioners.IC().init(plate(log_k))
curves["few steps with M"], ten_steps = [], None
for steps in (1, 3, 10, 20):
    one_step = lp.OneStepAdjoint(M, num_steps=steps)
    g = jax.jit(jax.grad(lambda p: reading(p, lp.SuperLU(), one_step)))(log_k)
    curves["few steps with M"].append((steps, error(g)))
    ten_steps = g if steps == 10 else ten_steps

# %% [markdown]
# ## Stochastic: right on average
#
# A quarter of the rows of $A$ get a cotangent, drawn at random and scaled: for when the backward pass of what
# makes the rows is what costs. The mean over $K$ draws has an error like $1/\sqrt K$.


# %%
def draw(log_k, key):
    return jax.grad(reading)(log_k, lp.SuperLU(), lp.StochasticAdjoint(key, n * n // 4))


draws = jax.jit(jax.vmap(draw, (None, 0)))(log_k, jax.random.split(jax.random.key(0), 120))
means = jnp.cumsum(draws, 0) / jnp.arange(1, 121)[:, None]
curves["stochastic (draws)"] = [(k, error(means[k - 1])) for k in (1, 3, 10, 30, 120)]

# %%
figure, axes = plt.subplot_mosaic("aabcde", figsize=(15, 3.4), layout="constrained")
for name, points in curves.items():
    axes["a"].loglog(*zip(*points), marker=".", label=name)
axes["a"].axhline(1, color="gray", linewidth=0.5)
axes["a"].set(title="error of the gradient", xlabel="steps of the iteration (or draws)")
axes["a"].legend(fontsize=8)
shown = {
    "exact": exact,
    "unrolled, 20 steps": fields[20],
    "10 steps with M": ten_steps,
    "stochastic, 120 draws": means[-1],
}
size = float(jnp.abs(exact).max())
for ax, (title, field) in zip([axes[key] for key in "bcde"], shown.items()):
    image = np.asarray(field).reshape(n, n).T
    ax.imshow(image, origin="lower", cmap="PuOr_r", vmin=-size, vmax=size)
    ax.set_title(title, fontsize=10)
    ax.axis("off")
plt.show()

# %% [markdown]
# ## Once more
#
# Implicit derivatives can be differentiated again: a product with the Hessian is `jvp` of `grad`, and costs
# four solves. Beside it, a difference of two exact gradients.


# %%
@jax.jit
def hessian_product(p, v):
    return jax.jvp(jax.grad(lambda p: reading(p, lp.CG(rtol=1e-10))), (p,), (v,))[1]


exact_gradient = jax.jit(jax.grad(lambda p: reading(p, lp.SuperLU())))
bump = jnp.asarray(np.sin(3 * x) * np.cos(4 * y)).ravel()
curvature = hessian_product(log_k, bump)
difference = (exact_gradient(log_k + 1e-4 * bump) - exact_gradient(log_k - 1e-4 * bump)) / 2e-4
second = float(jnp.linalg.norm(curvature - difference) / jnp.linalg.norm(difference))

# %% [markdown]
# ## The numbers
#
# After about twenty steps: the error of $u$, of the implicit gradient and of the unrolled one.

# %%
solve = lambda solver: lp.linear_solve(plate(log_k), heat, solver).value
u = solve(lp.SuperLU())
solution_error = float(jnp.linalg.norm(solve(twenty) - u) / jnp.linalg.norm(u))
implicit_error = next(e for steps, e in curves["implicit"] if steps >= 20)
unrolled_error = error(fields[20])
print(f"solution {solution_error:.1e}, its gradient {implicit_error:.1e}")
print(f"gradient of the iterations {unrolled_error:.1e}; product with the Hessian {second:.1e}")
