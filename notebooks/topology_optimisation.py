# %% [markdown]
# # Topology optimisation: the stiffest beam of half the material
#
# A beam lies on two supports and carries a load in the middle. Where should the material be, if there is
# enough for half of its area? scikit-fem makes the stiffness matrix, a sparse solve gives the displacement,
# and `jax.grad` through the solve says what material is worth in each element.
#
# The method is the classical one (SIMP): M. P. Bendsøe and O. Sigmund, *Topology Optimization* (2004), with
# the density filter and the steps of Andreassen et al. (2011), doi:10.1007/s00158-010-0594-7.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy.optimize
import scipy.spatial
import skfem
from skfem.models.elasticity import lame_parameters, linear_elasticity

import linsolve_prim as lp

jax.config.update("jax_enable_x64", True)
nx, ny = 90, 30  # elements in half of the beam; the other half is its mirror image

# %% [markdown]
# ## Assembled once
#
# scikit-fem integrates the 8×8 matrix of each element, for full material. A design scales these matrices, so
# that the pattern is a constant, and the entries are a linear function of the elements' stiffness. The left
# edge is the mirror: nothing moves sideways there. The support is at the lower right corner.

# %%
mesh = skfem.MeshQuad.init_tensor(np.arange(nx + 1.0), np.arange(ny + 1.0))
basis = skfem.Basis(mesh, skfem.ElementVector(skfem.ElementQuad1()))
poisson = 0.3
shear = lame_parameters(1.0, poisson)[1]  # for a Young's modulus of 1
plane_stress = linear_elasticity(poisson / (1 - poisson**2), shear)
full = plane_stress.elemental(basis)  # triplets: all elements for each of the 64 places of a matrix

x, y = mesh.p
sideways, upwards = basis.nodal_dofs
fixed = np.concatenate([sideways[x == 0], upwards[(x == nx) & (y == 0)]])
free = np.setdiff1d(np.arange(basis.N), fixed)
place = np.full(basis.N, -1)
place[free] = np.arange(len(free))
load = jnp.zeros(len(free)).at[place[upwards[(x == 0) & (y == ny)]]].set(-1.0)

rows, columns = place[full.indices]
kept = (rows >= 0) & (columns >= 0)
element = np.tile(np.arange(mesh.nelements), 64)[kept]
print(f"{mesh.nelements} elements, {len(free)} unknowns, {kept.sum()} triplets")


def beam(stiffness):
    """The operator for a stiffness of each element."""
    values = jnp.asarray(full.data[kept]) * stiffness[element]
    shape = (len(free), len(free))
    return lp.SparseLinearOperator.from_coo(
        rows[kept], columns[kept], values, shape, lp.positive_semidefinite_tag
    )


# %% [markdown]
# ## From a design to its compliance
#
# The density of an element is the mean of the design variables around it, which keeps the result independent
# of the mesh; its cube is the stiffness, so that grey material is not worth its weight. The compliance is
# the work of the load: what is soft, gives way.
#
# The solver is CHOLMOD where it is installed (its licence is the GPL: `lp` never chooses it by itself).

# %%
installed = {library.solver for library in lp.host.available()}
solver = lp.CHOLMOD() if "CHOLMOD" in installed else lp.AutoLinearSolver()

radius = 2.0
centre = scipy.spatial.KDTree(mesh.p[:, mesh.t].mean(axis=1).T)
near = centre.sparse_distance_matrix(centre, radius, output_type="coo_matrix")
weight = (radius - near.data) / np.bincount(near.row, radius - near.data)[near.row]
smooth = lp.SparseLinearOperator.from_coo(near.row, near.col, weight, near.shape)


def displacement(design):
    stiffness = 1e-9 + smooth.mv(design) ** 3
    return lp.linear_solve(beam(stiffness), load, solver).value


compliance = jax.jit(lambda design: load @ displacement(design))
value_and_gradient = jax.jit(jax.value_and_grad(compliance))

# %% [markdown]
# ## Is the gradient right?
#
# Beside a finite difference, and beside the formula that textbooks derive by hand.

# %%
random = np.random.default_rng(0)
design = jnp.asarray(random.uniform(0.3, 0.7, mesh.nelements))
direction = jnp.asarray(random.normal(size=mesh.nelements))
gradient = value_and_gradient(design)[1]
h = 1e-4
difference = compliance(design + h * direction) - compliance(design - h * direction)
gradient_error = float(abs(gradient @ direction / (difference / (2 * h)) - 1))

u = jnp.zeros(basis.N).at[free].set(displacement(design))[basis.element_dofs]
energy = jnp.einsum("ie,ije,je->e", u, full.data.reshape(8, 8, -1), u)
by_hand = smooth.T.mv(-3 * smooth.mv(design) ** 2 * energy)
print(f"the formula is found: {bool(jnp.allclose(gradient, by_hand, rtol=1e-8))}")

# %% [markdown]
# ## The optimality criterion
#
# Material goes where it is worth more than its price, by the square root of that ratio and by 0.2 at most.
# The price is such that half of the area is used.

# %%
worth_of_area = jax.grad(lambda design: jnp.sum(smooth.mv(design)))(design)
used = lambda design: float(jnp.mean(smooth.mv(design)))


def improved(design, gradient):
    worth = np.sqrt(np.maximum(-np.asarray(gradient / worth_of_area), 0))
    low, high = np.maximum(design - 0.2, 0), np.minimum(design + 0.2, 1)
    at = lambda log_price: np.clip(design * worth * np.exp(-log_price), low, high)
    log_price = scipy.optimize.brentq(lambda p: used(at(p)) - 0.5, -20, 20, xtol=1e-6)
    return at(log_price)


lp.host.registry.reset_stats()
design, history, snapshots = np.full(mesh.nelements, 0.5), [], {}
for step in range(80):
    value, gradient = value_and_gradient(design)
    history.append(float(value))
    if step in (0, 5, 20):
        snapshots[step] = np.asarray(smooth.mv(design))
    design = improved(design, gradient)
counts = lp.host.registry.stats()
history.append(float(compliance(design)))
snapshots[80] = np.asarray(smooth.mv(design))
factorizations = counts["factorizations"] / 80
print(f"{factorizations:.2f} factorizations for each compliance and its gradient")

# %%
figure, axes = plt.subplots(2, 2, figsize=(11, 4.2), layout="constrained")
for ax, (step, density) in zip(axes.flat, snapshots.items()):
    half = np.empty((ny, nx))
    column, row = np.floor(centre.data.T).astype(int)
    half[row, column] = density
    whole = np.hstack([half[:, ::-1], half])
    ax.imshow(whole, origin="lower", cmap="Greys", vmin=0, vmax=1, extent=(-nx, nx, 0, ny))
    ax.plot([-nx, nx], [-1.5, -1.5], "^", color="tab:blue", markersize=9, clip_on=False)
    ax.annotate(
        "", (0, ny), (0, ny + 11), arrowprops={"color": "tab:red", "width": 2, "headwidth": 8}
    )
    ax.set(
        title=f"step {step}: compliance {history[step]:.0f}",
        xlim=(-nx - 3, nx + 3),
        ylim=(-4, ny + 11),
    )
    ax.axis("off")
plt.show()

# %% [markdown]
# ## The numbers
#
# How much stiffer the beam became with the same material, and how exact its gradient is.

# %%
fall = history[0] / history[-1]
print(f"compliance: from {history[0]:.0f} to {history[-1]:.0f}")
print(f"{fall:.1f} times stiffer; error of the gradient below 1e-5: {gradient_error < 1e-5}")
