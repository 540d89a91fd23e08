# %% [markdown]
# # A comparison: is the answer true, and the gradient?
#
# Four packages that solve linear systems in Python, on the same problems: `jax.numpy` and `jax.scipy`, Lineax,
# SciPy and this one. Two questions: when a solve fails, is one told? And is the gradient that of the
# solution? (Times are in the benchmarks: `python -m benchmarks`.)

# %%
import logging
import warnings

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg as jspla
import lineax as lx
import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
import scipy.sparse.linalg as spla

import linsolve_prim as lp

jax.config.update("jax_enable_x64", True)
logging.getLogger("jax._src.callback").setLevel(logging.CRITICAL)  # exceptions are printed below
rng = np.random.default_rng(0)

# %% [markdown]
# ## From easy to impossible
#
# 60 matrices of 30 unknowns, whose condition numbers go from 10 to infinity: the last 15 are singular, up
# to rounding, and have no solution. Each is solved directly and by GMRES.

# %%
n, count = 30, 60
conditions = np.append(np.logspace(1, 16, count - 15), np.full(15, np.inf))


def system(condition):
    """A matrix with that condition number, and a right-hand side."""
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    values = np.geomspace(1, 1 / condition, n) if condition < np.inf else np.append(
        np.linspace(1, 0.1, n - 2), [0, 0]
    )  # fmt: skip
    return left @ np.diag(values) @ right, rng.normal(size=n)


systems = [system(condition) for condition in conditions]


def package(m, solver):
    """x, and whether the package says that it is one. Lineax's interface, which is ours too."""

    @jax.jit
    def solve(a, b):
        solution = m.linear_solve(m.MatrixLinearOperator(a), b, solver, throw=False)
        return solution.value, solution.result == m.RESULTS.successful

    return solve


def silent(solve):
    """Who has no result code can say that something is wrong by NaN only."""

    def told(a, b):
        x = solve(a, b)
        return x, bool(np.all(np.isfinite(x)))

    return told


def scipy_solve(a, b):
    with warnings.catch_warnings():
        warnings.simplefilter("error", scipy.linalg.LinAlgWarning)
        try:
            return scipy.linalg.solve(a, b), True
        except (scipy.linalg.LinAlgError, scipy.linalg.LinAlgWarning):
            return np.full(n, np.nan), False


def scipy_gmres(a, b):
    x, info = spla.gmres(a, b, rtol=rtol, atol=0, restart=n, maxiter=10)
    return x, info == 0


rtol = 1e-8
direct = {
    "linsolve_prim": package(lp, lp.LU()),
    "Lineax": package(lx, lx.LU()),
    "jax.numpy": silent(jax.jit(jnp.linalg.solve)),
    "SciPy": scipy_solve,
}
iterative = {
    "linsolve_prim": package(lp, lp.GMRES(rtol=rtol, restart=n, max_steps=10 * n)),
    "Lineax": package(lx, lx.GMRES(rtol=rtol, atol=1e-300, restart=n, max_steps=10 * n)),
    "jax.scipy": silent(
        jax.jit(lambda a, b: jspla.gmres(a, b, tol=rtol, restart=n, maxiter=10)[0])
    ),
    "SciPy": scipy_gmres,
}

# %% [markdown]
# A solve has failed if the residual, computed again by NumPy, is more than ten times what was asked for;
# of direct ones, which nobody asked for anything, if not even five digits are right. (LU is stable: its
# residual is always small beside that of a perturbed A. Whoever needs Ax = b has to look beside b.)


# %%
LIMIT = {"direct": 1e-5, "GMRES": 10 * rtol}


def judge(solve):
    """For each system: the relative residual, and whether a success was claimed."""
    residuals, claims = np.empty(count), np.empty(count, bool)
    for k, (a, b) in enumerate(systems):
        x, claims[k] = solve(a, b)
        with np.errstate(all="ignore"):
            residuals[k] = np.linalg.norm(b - a @ np.asarray(x)) / np.linalg.norm(b)
    return np.where(np.isfinite(residuals), residuals, np.inf), claims


def count_of(kind, residuals, claims):
    failed = residuals > LIMIT[kind]
    return failed.sum(), (failed & ~claims).sum(), (~failed & ~claims).sum()


print(f"{'':26} failed  told  false alarms")
found, tally = {}, {}
for kind, contestants in (("direct", direct), ("GMRES", iterative)):
    for name, solve in contestants.items():
        found[kind, name] = judge(solve)
        tally[kind, name] = count_of(kind, *found[kind, name])
        print(f"{kind:9}{name:17}" + "{:7}{:6}{:9}".format(*tally[kind, name]))

# %% [markdown]
# ## A gradient has its own failure
#
# The gradient takes a solve with another right-hand side, and that may fail where the first did not. Here b is
# made of five eigenvectors, so that conjugate gradients find x in five steps; the gradient of
# $\\sum_i \\sin x_i$ needs many more than is allowed. How wrong is it, and is one told?

# %%
size = 200
basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
definite = jnp.asarray(basis @ np.diag(np.geomspace(1, 1e3, size)) @ basis.T)
few = jnp.asarray(basis[:, ::40] @ np.ones(5))
exact = jnp.linalg.solve(definite, jnp.cos(jnp.linalg.solve(definite, few)))


def by_package(m):
    def solve(b, steps):
        operator = m.MatrixLinearOperator(definite, m.positive_semidefinite_tag)
        solver = m.CG(rtol=rtol, atol=1e-12, max_steps=steps)
        return m.linear_solve(operator, b, solver).value

    return solve


gradients = {
    "linsolve_prim": by_package(lp),
    "Lineax": by_package(lx),
    "jax.scipy": lambda b, steps: jspla.cg(lambda v: definite @ v, b, tol=rtol, maxiter=steps)[0],
}
allowed = (10, 30, 100, 400)
errors = {name: [] for name in gradients}
silently = dict.fromkeys(gradients, 0)
for name, solve in gradients.items():
    for steps in allowed:
        try:
            g = jax.grad(lambda b, solve=solve, k=steps: jnp.sum(jnp.sin(solve(b, k))))(few)
        except Exception as error:  # each package has its own
            errors[name].append(np.nan)
            print(f"{name:14}{steps:4} steps: {type(error).__name__}")
            continue
        errors[name].append(float(jnp.linalg.norm(g - exact) / jnp.linalg.norm(exact)))
        silently[name] += errors[name][-1] > 1e-5
        print(f"{name:14}{steps:4} steps: error {errors[name][-1]:.0e}")

# %% [markdown]
# ## The picture
#
# Every solve is a dot: green if its claim is true, red if a failure was not told, orange for a false alarm.

# %%
figure, axes = plt.subplots(
    2, 4, figsize=(9.6, 4.2), layout="constrained", sharex=True, sharey=True
)
where = np.append(np.log10(conditions[:-15]), np.linspace(17.5, 20, 15))
for row, kind in zip(axes, ("direct", "GMRES")):
    names = [name for k, name in found if k == kind]
    for ax, name in zip(row, names):
        residuals, claims = found[kind, name]
        failed = residuals > LIMIT[kind]
        color = np.where(failed & claims, "red", np.where(~failed & ~claims, "orange", "green"))
        marker_at = np.clip(residuals, 1e-17, 1e3)
        ax.axvspan(17, 20.5, color="0.92")
        ax.axhline(LIMIT[kind], color="gray", linewidth=0.6)
        ax.scatter(where, marker_at, c=color, s=14)
        ax.set(title=f"{name}, {kind}", yscale="log", xticks=[1, 6, 11, 16, 18.7])
        ax.set_xticklabels(["10", "1e6", "1e11", "1e16", "∞"])
figure.supxlabel("condition number")
figure.supylabel("relative residual")
plt.show()

# %% [markdown]
# ## The numbers
#
# Of our failures, how many were told, and how many alarms were false; how many of the others' were told; and
# how many wrong gradients came without a word.

# %%
ours, others = (
    np.sum([t for (_, name), t in tally.items() if (name == "linsolve_prim") == own], axis=0)
    for own in (True, False)
)
told, alarms, told_by_others = ours[1] / ours[0], ours[2] / (2 * count), others[1] / others[0]
silent_gradients = silently["linsolve_prim"]
print(
    f"told: ours {100 * told:.0f} %, false alarms {100 * alarms:.0f} %; others {100 * told_by_others:.0f} %"
)
print("wrong gradients without a word:", silently)
