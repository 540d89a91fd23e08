# %% [markdown]
# # Preconditioners and multigrid
#
# Conjugate gradients need more steps on finer grids. A preconditioner that knows only neighbours
# makes that better by a factor; multigrid makes the number of steps a constant. Here: who needs
# how many, and a hierarchy that is set up once and follows coefficients that change, inside of a
# compiled time loop.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import linsolve_prim as lp
from linsolve_prim.preconditioners import AMG, IC, GeometricMultigrid

jax.config.update("jax_enable_x64", True)


def diffusion(c):
    """−∇·(c∇u) on a square of cells, u = 0 outside: a linear function of u, for cell values c."""
    mean = lambda a, b: 2 * a * b / (a + b)
    edge = jnp.pad(c, 1, mode="edge")
    faces = [edge[2:, 1:-1], edge[:-2, 1:-1], edge[1:-1, 2:], edge[1:-1, :-2]]

    def apply(u):
        around = jnp.pad(u, 1)
        near = [around[2:, 1:-1], around[:-2, 1:-1], around[1:-1, 2:], around[1:-1, :-2]]
        return sum(mean(c, face) * (u - v) for face, v in zip(faces, near))

    return apply


def matrix_of(c):
    """The same as a sparse matrix: its pattern is found from the function."""
    return lp.materialise_sparse(diffusion(c), c, tags=lp.positive_semidefinite_tag)[0]


# %% [markdown]
# ## How many steps?
#
# `GeometricMultigrid` sees the function alone; `AMG` and `IC` take its matrix.

# %%
rtol = 1e-8
# (256 unknowns are so few that multigrid inverts the matrix)
sizes, steps = [16, 32, 64, 128], {"none": [], "IC": [], "AMG": [], "GeometricMultigrid": []}
for n in sizes:
    b, matrix = jnp.ones(n * n), matrix_of(jnp.ones((n, n)))
    for name, m in (("none", None), ("IC", IC()), ("AMG", AMG())):
        solution = lp.linear_solve(matrix, b, lp.CG(rtol, preconditioner=m))
        steps[name].append(int(solution.stats["num_steps"]))
    function = lp.FunctionLinearOperator(
        diffusion(jnp.ones((n, n))), b.reshape(n, n), lp.positive_semidefinite_tag
    )
    solver = lp.CG(rtol, preconditioner=GeometricMultigrid())
    solution = lp.linear_solve(function, b.reshape(n, n), solver)
    steps["GeometricMultigrid"].append(int(solution.stats["num_steps"]))

print(f"{'unknowns':20}", *(f"{n * n:6}" for n in sizes))
for name, counts in steps.items():
    print(f"{name:20}", *(f"{count:6}" for count in counts))
    plt.loglog([n * n for n in sizes], counts, "o-", label=name)
plt.xlabel("unknowns"), plt.ylabel("steps of CG"), plt.legend()
plt.show()

# %% [markdown]
# ## Coefficients that change
#
# Heat flows through a disc that becomes a better conductor by and by. PyAMG is asked once, before
# the loop; inside, the coarse operators are recomputed on the device. An implicit step is one
# solve with (1 + τA).

# %%
n, tau = 64, 4.0
y, x = jnp.meshgrid(*[jnp.linspace(-1, 1, n)] * 2, indexing="ij")
disc = x**2 + y**2 < 0.3
conductivity = lambda t: jnp.where(disc, 1.0 + 20.0 * t, 1.0)


def step_operator(t):
    c = conductivity(t)
    return lp.materialise_sparse(
        lambda u: u + tau * diffusion(c)(u), c, tags=lp.positive_semidefinite_tag
    )[0]


hierarchy = AMG().prepare(step_operator(0.5))


@jax.jit
def simulate(u):
    def step(u, t):
        solver = lp.CG(rtol, preconditioner=hierarchy)
        solution = lp.linear_solve(step_operator(t), u, solver)
        return solution.value, solution.stats["num_steps"]

    return jax.lax.scan(step, u, jnp.linspace(0, 1, 20))


u0 = jnp.exp(-30 * ((x + 0.6) ** 2 + y**2)).ravel()
u, counts = simulate(u0)
print("steps of CG in each time step:", *counts)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.5))
for ax, field, title in zip(axes, (u0, u), ("at first", "after 20 steps")):
    ax.imshow(field.reshape(n, n), origin="lower", cmap="inferno")
    ax.set_title(title)
    ax.axis("off")
    ax.contour(disc, levels=[0.5], colors="white", linewidths=0.8)
plt.show()

# %% [markdown]
# ## The number
#
# What the last temperature depends on: the gradient of the heat in the disc by the first
# temperature, through 20 solves, checked by finite differences.

# %%
heat = lambda u: jnp.sum(jnp.where(disc.ravel(), simulate(u)[0], 0.0))
direction = jnp.cos(jnp.arange(n * n, dtype=u0.dtype))
slope = jnp.vdot(jax.grad(heat)(u0), direction)
h = 1e-2  # the heat is linear in u0, so that any step will do
difference = (heat(u0 + h * direction) - heat(u0 - h * direction)) / (2 * h)
error = float(abs(slope - difference) / abs(difference))
growth = steps["AMG"][-1] / steps["AMG"][1]
print(f"slope {slope:.6f}, by differences {difference:.6f}")
print(
    f"from 1024 to 16384 unknowns: {growth:.1f} times the steps with AMG, "
    f"{steps['none'][-1] / steps['none'][1]:.1f} times without"
)
