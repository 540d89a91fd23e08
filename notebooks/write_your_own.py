# %% [markdown]
# # Write your own
#
# An operator is a product and a transpose; a solver two methods and three short ones; a library
# on the host is two functions. Nothing is registered, and no derivative is written: those come from the
# primitive. Here a blurred picture is made sharp again, with an operator and a solver that know about FFTs,
# and the strength of the regularisation is found by its gradient.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse.linalg as spla

import linsolve_prim as lp

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## An operator
#
# A convolution on the torus: by its kernel, of the size of the picture. Its transpose is the convolution with
# the kernel turned round. That is all that has to be said.


# %%
def turned(kernel):
    """kernel[-i, -j], indices being periodic."""
    return jnp.roll(kernel[::-1, ::-1], (1, 1), (0, 1))


class Convolution(lp.AbstractLinearOperator):
    kernel: jax.Array

    def mv(self, picture):
        product = jnp.fft.rfft2(self.kernel) * jnp.fft.rfft2(picture)
        return jnp.fft.irfft2(product, self.kernel.shape)

    def transpose(self):
        return Convolution(turned(self.kernel))

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.kernel.shape, self.kernel.dtype)

    def out_structure(self):
        return self.in_structure()


random = np.random.default_rng(0)
small = Convolution(jnp.asarray(random.normal(size=(4, 6))))
lp.testing.check_operator(small)

# %% [markdown]
# ## A solver
#
# `init` does what depends on A alone (one FFT), `compute` the rest. The transposed system has the conjugated
# eigenvalues, so the state is used again. `check_solver` holds all of it against the laws: solution, transpose,
# `jit`, `vmap`, derivatives against finite differences, bad input.


# %%
class FFT(lp.AbstractLinearSolver):
    """Divides by the eigenvalues."""

    def init(self, operator, options):
        return jnp.fft.rfft2(operator.kernel)

    def compute(self, state, vector, options):
        x = jnp.fft.irfft2(jnp.fft.rfft2(vector) / state, vector.shape)
        return x, lp.RESULTS.successful, {}

    def transpose(self, state, options):
        return state.conj(), options

    def conj(self, state, options):
        return state, options  # the kernel is real

    def assume_full_rank(self):
        return True


lp.testing.check_solver(FFT(), small)

# %% [markdown]
# It says that it was successful whatever comes out. It is not believed: an eigenvalue that is zero is found out
# by the residual.

# %%
flat = Convolution(jnp.ones((4, 6)))
print(
    "told:", lp.linear_solve(flat, small.kernel, FFT(), throw=False).result != lp.RESULTS.successful
)

# %% [markdown]
# ## A picture
#
# Blurred and noisy. Tikhonov's estimate solves $(K^TK + \mu I)\,x = K^T y$, which is a convolution as well.

# %%
n = 96
s, t = np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2, indexing="ij")
ring = np.abs(np.hypot(s - 0.5, t - 0.5) - 0.33) < 0.06
stripes = (np.sin(60 * s) > 0) & (np.hypot(s - 0.5, t - 0.5) < 0.2)
sharp = jnp.asarray(1.0 * ring + 0.8 * stripes)
away = np.minimum(np.arange(n), n - np.arange(n))
blur = np.exp(-(away[:, None] ** 2 + away**2) / (2 * 1.6**2))
blur = jnp.asarray(blur / blur.sum())
seen = Convolution(blur).mv(sharp) + 0.005 * random.normal(size=(n, n))


def restored(log_mu, blur, seen, solver):
    k = Convolution(blur)
    tikhonov = k.T.mv(k.kernel).at[0, 0].add(jnp.exp(log_mu))  # the kernel of KᵀK + μI
    return lp.linear_solve(Convolution(tikhonov), k.T.mv(seen), solver).value


# %% [markdown]
# ## Derivatives for nothing
#
# The best μ for pictures like this one, by Newton's method: two derivatives through solver and operator.


# %%
def misfit(log_mu):
    return jnp.mean((restored(log_mu, blur, seen, FFT()) - sharp) ** 2)


first, second = jax.jit(jax.grad(misfit)), jax.jit(jax.grad(jax.grad(misfit)))
log_mu = jnp.asarray(-4.0)
for _ in range(15):
    log_mu = log_mu - jnp.clip(first(log_mu) / jnp.abs(second(log_mu)), -1, 1)
print(
    f"μ = {float(jnp.exp(log_mu)):.1e}, slope there below 1e-8: {bool(abs(first(log_mu)) < 1e-8)}"
)

# %%
pictures = {
    "seen": seen,
    "nearly by division (μ = 1e-6)": restored(np.log(1e-6), blur, seen, FFT()),
    "with the best μ": restored(log_mu, blur, seen, FFT()),
    "true": sharp,
}
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for ax, (title, picture) in zip(axes, pictures.items()):
    ax.imshow(picture, cmap="gray", vmin=-0.2, vmax=1.2, interpolation="nearest")
    ax.set_title(title)
    ax.axis("off")
plt.show()

# %% [markdown]
# ## A library on the host
#
# Two functions make one: here SciPy's sparse LU, which is given the matrix (of a small picture) and knows
# nothing of convolutions. Value and gradient are those of our own solver, from one factorization.

# %%
superlu = lp.HostSolver(
    factorize=lambda A: spla.splu(A.tocsc()),
    solve=lambda lu, b, transpose: lu.solve(b, trans="T" if transpose else "N"),
)
lp.testing.check_solver(superlu, small)


# %%
def energy(kernel, solver):
    return jnp.sum(lp.linear_solve(Convolution(kernel), picture, solver).value ** 2)


picture = jnp.asarray(random.normal(size=(4, 6)))
gradient = jax.jit(jax.grad(energy), static_argnums=1)
lp.host.registry.clear()
lp.host.registry.reset_stats()
by_library, by_fft = gradient(small.kernel, superlu), gradient(small.kernel, FFT())
print("factorizations:", lp.host.registry.stats()["factorizations"])

# %% [markdown]
# ## The numbers
#
# How far the gradients of the two are apart, and by how much the error of the picture fell.

# %%
apart = float(jnp.linalg.norm(by_library - by_fft) / jnp.linalg.norm(by_fft))
fall = float(jnp.linalg.norm(seen - sharp) / jnp.linalg.norm(pictures["with the best μ"] - sharp))
print(f"gradients apart {apart:.1e}; error of the picture {fall:.2f} times smaller")
