# %% [markdown]
# # A preconditioner that is learned
#
# A family of matrices: a diagonal over two orders of magnitude, and four strong couplings of random
# strength, along directions that all members share. Jacobi's preconditioner knows nothing of those. We
# learn one for the whole family, $M = (D + UU^T)^{-1}$ by Woodbury's formula, by the condition number of
# $MA$; and try it on members that it has not seen.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import linsolve_prim as lp

jax.config.update("jax_enable_x64", True)
size, rank = 40, 4


def operator(key, symmetric=True):
    """A random member of the family."""
    first, second = jax.random.split(key)
    left, right = (
        jax.random.normal(jax.random.key(seed), (size, rank)) / size**0.5 for seed in (100, 101)
    )
    strength = 10 * jnp.exp(0.1 * jax.random.normal(first, (rank,)))
    noise = 0.03 * jax.random.normal(second, (size,))
    root = jnp.exp((jnp.linspace(0, 4, size) + noise) / 2)
    coupling = (left * strength) @ (left if symmetric else right).T
    matrix = root[:, None] * (jnp.eye(size) + coupling) * root
    return lp.MatrixLinearOperator(matrix, lp.positive_semidefinite_tag if symmetric else ())


# %% [markdown]
# ## Training
#
# `condition_number_loss` is $\log\kappa_2(MA)$ from singular values, finite for every matrix. The
# preconditioner is a pytree, so that Optax trains it as it would a network. For a family that is not
# symmetric there is the form $D + UV^T$, for GMRES.


# %%
def untrained(symmetric):
    return lp.learn.LearnedPreconditioner.untrained(
        jax.random.key(0), size, rank, symmetric=symmetric, scale=0.3, follows_diagonal=False
    )


def train(symmetric, rounds=400, batch=8):
    preconditioner = untrained(symmetric)
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, rounds))
    loss = lambda preconditioner, key: lp.learn.condition_number_loss(
        operator(key, symmetric), preconditioner
    )
    mean_loss = lambda preconditioner, keys: jnp.mean(
        jax.vmap(lambda key: loss(preconditioner, key))(keys)
    )

    @jax.jit
    def update(preconditioner, state, key):
        value, gradient = jax.value_and_grad(mean_loss)(
            preconditioner, jax.random.split(key, batch)
        )
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(preconditioner, updates), state, value

    state, losses = optimiser.init(preconditioner), []
    for key in jax.random.split(jax.random.key(1), rounds):
        preconditioner, state, value = update(preconditioner, state, key)
        losses.append(float(value))
    return preconditioner, losses


trained, losses = train(symmetric=True)
trained_general, _ = train(symmetric=False)

# %% [markdown]
# ## Twenty members that it has not seen
#
# Steps to a relative residual of 1e-8, beside no preconditioner, Jacobi's, and the untrained one.

# %%
unseen = jax.random.split(jax.random.key(2), 20)
b = jnp.ones(size)


def mean_steps(preconditioner, symmetric):
    settings = {"rtol": 1e-8, "preconditioner": preconditioner}
    solver = lp.CG(**settings) if symmetric else lp.GMRES(restart=size, **settings)
    solve = lambda key: lp.linear_solve(operator(key, symmetric), b, solver).stats["num_steps"]
    return float(jnp.mean(jax.vmap(solve)(unseen)))


steps = {}
for symmetric, learned in ((True, trained), (False, trained_general)):
    tried = {"none": None, "Jacobi": lp.preconditioners.Jacobi()}
    tried |= {"untrained": untrained(symmetric), "trained": learned}
    steps[symmetric] = {name: mean_steps(m, symmetric) for name, m in tried.items()}
    shown = ", ".join(f"{name} {value:.1f}" for name, value in steps[symmetric].items())
    print("steps of CG:   " if symmetric else "steps of GMRES:", shown)

# %%
one = operator(unseen[0])
tried = {
    "none": None,
    "Jacobi": lp.preconditioners.Jacobi(),
    "untrained": untrained(True),
    "trained": trained,
}
figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
for level, (name, m) in enumerate(tried.items()):
    solver = lp.CG(rtol=1e-8, preconditioner=m, history=True)
    stats = lp.linear_solve(one, b, solver).stats
    history = np.asarray(stats["history"])[: int(stats["num_steps"]) + 1]
    axes[0].semilogy(history / history[0], label=name)
    product = one.as_matrix() if m is None else m.init(one).as_matrix() @ one.as_matrix()
    spectrum = np.linalg.eigvals(np.asarray(product)).real
    axes[1].semilogx(spectrum, np.full(size, -level), "|", markersize=18)
axes[0].set(title="relative residual, unseen matrix", xlabel="step of CG")
axes[0].legend()
axes[1].set(title="eigenvalues of MA", yticks=[0, -1, -2, -3], yticklabels=tried)
axes[2].plot(np.exp(losses), color="black")
axes[2].set(title="condition number in training", xlabel="step of Adam", yscale="log")
plt.show()

# %% [markdown]
# ## The number
#
# Steps with the learned preconditioner beside the best of the others.

# %%
ratios = {
    s: n["trained"] / min(v for k, v in n.items() if k != "trained") for s, n in steps.items()
}
ratio, ratio_general = ratios[True], ratios[False]
print(f"CG: {ratio:.2f} of the steps of the best other; GMRES: {ratio_general:.2f}")
