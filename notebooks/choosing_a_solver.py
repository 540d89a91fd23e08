# %% [markdown]
# # Choosing a solver
#
# What is promised about a matrix decides what may solve it. `lp.solve` chooses by that, `lp.explain` says
# what and why, and a promise that is not kept is noticed. Here: a plate of uneven conductivity with two
# sources of heat, on a grid of 50 × 50.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import linsolve_prim as lp

jax.config.update("jax_enable_x64", True)

# %%
m = 50
noise = np.random.default_rng(3).normal(size=(m, m))
wave = np.hypot(*np.meshgrid(np.fft.fftfreq(m), np.fft.fftfreq(m)))
smooth = np.fft.ifft2(np.fft.fft2(noise) / (1 + (20 * wave) ** 2)).real
conductivity = jnp.asarray(np.exp(1.5 * smooth / smooth.std()))


def diffusion(u):
    """Heat that leaves each cell; around the plate the temperature is zero."""
    inside, k = jnp.pad(u, 1), jnp.pad(conductivity, 1, mode="edge")
    leaves = jnp.zeros_like(inside)
    for axis in (0, 1):
        for side in (1, -1):
            between = 2 / (1 / k + 1 / jnp.roll(k, side, axis))
            leaves += between * (inside - jnp.roll(inside, side, axis))
    return leaves[1:-1, 1:-1]


heat = jnp.zeros((m, m)).at[12, 12].set(1.0).at[36, 30].set(1.0)

# %% [markdown]
# ## What would be done
#
# `explain` takes what `solve` takes, and solves nothing. Of a function it first finds the sparse matrix.

# %%
print(lp.explain(diffusion, heat))

# %% [markdown]
# The same system, described in other ways: the choice follows what is known. No method is ever taken on the
# guess that a matrix might be symmetric or definite; a tag is how one says so.

# %%
sparse, _ = lp.materialise_sparse(lambda v: diffusion(v.reshape(m, m)).ravel(), heat.ravel())
b, dense = heat.ravel(), sparse.as_matrix()
definite = lp.SparseLinearOperator(sparse.values, sparse.pattern, lp.positive_semidefinite_tag)
described = {
    "a matrix": (dense, {}),
    "a matrix, tagged": (lp.MatrixLinearOperator(dense, lp.positive_semidefinite_tag), {}),
    "sparse": (sparse, {}),
    "sparse, preconditioned": (sparse, {"preconditioner": "auto"}),
    "the same, tagged": (definite, {"preconditioner": "auto"}),
}
for name, (A, settings) in described.items():
    lines = lp.explain(A, b, **settings).splitlines()
    chosen = [line.split("(")[0] for line in lines if line.startswith(("solver", "preconditioner"))]
    print(f"{name:23}", ", ".join(chosen))

# %% [markdown]
# ## What there is
#
# `print(lp.list_solvers())` shows all; its rows can be asked. Which iterative ones need no promise, which do?

# %%
iterative = [s for s in lp.list_solvers() if s.kind == "iterative" and s.device == "any"]
for assumed in ("nothing", "symmetric", "definite"):
    print(
        f"{assumed:9}", *(s.name for s in iterative if s.assumes == assumed and not s.rectangular)
    )

# %% [markdown]
# ## What a promise is worth
#
# The same equations by seven methods, to nine digits, with `history=True` to keep their residuals. What
# matters is not the number of steps, but that of products with A.

# %%
rtol = 1e-9
keep = {"rtol": rtol, "history": True}
general = {
    "GMRES": lp.GMRES(**keep, restart=30),
    "BiCGStab": lp.BiCGStab(**keep),
    "IDR": lp.IDR(**keep),
}
promised = {
    "MINRES": lp.MINRES(**keep),
    "CG": lp.CG(**keep),
    "CG, incomplete Cholesky": lp.CG(**keep, preconditioner="ic"),
    "CG, multigrid": lp.CG(**keep, preconditioner="amg"),
}
solutions = {name: lp.linear_solve(sparse, b, solver) for name, solver in general.items()}
solutions |= {name: lp.linear_solve(definite, b, solver) for name, solver in promised.items()}
products = {name: int(solution.stats["matvecs"]) for name, solution in solutions.items()}
exact = np.linalg.solve(dense, b)
off = lambda x: float(np.linalg.norm(x - exact) / np.linalg.norm(exact))
for name, solution in solutions.items():
    print(f"{name:24}{products[name]:5} products, error {off(solution.value):.0e}")

# %%
figure, (left, right) = plt.subplots(
    1, 2, figsize=(9.6, 3.5), layout="constrained", width_ratios=(1, 1.5)
)
left.contourf(jnp.log(conductivity), 6, cmap="Greys")
temperature = solutions["CG"].value.reshape(m, m)
levels = temperature.max() * np.geomspace(0.003, 0.9, 14)
left.contour(temperature, levels, cmap="inferno", norm="log", linewidths=1.2)
left.set_aspect("equal")
left.set(title="temperature, over the conductivity", xticks=[], yticks=[])
for name in solutions:
    stats = solutions[name].stats
    history = np.asarray(stats["history"])[: int(stats["history_length"])]
    axis = np.linspace(0, products[name], len(history))
    best = np.minimum.accumulate(history / history[0])
    right.semilogy(axis, best, "--" if name in general else "-", label=name)
right.axhline(rtol, color="gray", linewidth=0.6)
right.set(
    title="smallest residual so far: with no promise (dashed), and with one",
    xlabel="products with A",
)
right.set(xscale="symlog", xlim=(0, None))
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## Promises that are not kept
#
# Wind over the plate makes the matrix unsymmetric; a reaction that makes heat from heat makes it indefinite.
# Both are tagged definite all the same, and given to solvers that rely on it. Whoever relied on it and
# failed says so; whoever claims a success has the residual that was asked for.

# %%
shift = np.kron(np.eye(m), np.eye(m, k=1))
spoiled = {"wind": dense + 2 * (shift - shift.T), "reaction": dense - 0.1 * np.eye(m * m)}
untrue = refused = 0
for name, matrix in spoiled.items():
    A = lp.MatrixLinearOperator(matrix, lp.positive_semidefinite_tag)
    entries = lp.SparseLinearOperator.from_dense(matrix, tags=lp.positive_semidefinite_tag)
    for solver in (lp.Cholesky(), lp.CG(rtol, max_steps=2000), lp.MINRES(rtol, max_steps=2000)):
        method = f"{name:9}{type(solver).__name__:9}"
        try:
            x = lp.solve(A if isinstance(solver, lp.Cholesky) else entries, b, solver)
        except lp.LinearSolveError as error:
            refused += 1
            print(method, type(error).__name__)
            continue
        residual = float(jnp.linalg.norm(b - matrix @ x) / jnp.linalg.norm(b))
        untrue += residual > 2 * rtol
        print(method, f"relative residual {residual:.0e}")

# %% [markdown]
# ## The numbers
#
# The largest error of the seven solutions; how many products a promise and a preconditioner saved; and how
# many claims of success were untrue.

# %%
error = max(off(solution.value) for solution in solutions.values())
saved = min(products[name] for name in general) / products["CG, incomplete Cholesky"]
print(
    f"errors below 1e-7: {error < 1e-7}; {saved:.0f} times fewer products; {untrue} untrue claims"
)
