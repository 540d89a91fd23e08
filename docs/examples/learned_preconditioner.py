"""A preconditioner, diagonal plus low rank, that is learned for a family of matrices.

Each matrix is a diagonal over two orders of magnitude, and a few strong couplings of random strength
along directions that all of them share. Jacobi's preconditioner knows nothing of those. The learned one
is trained on the condition number of MA, and then tried on matrices that it was not trained on: by CG
for the symmetric family (D + UUᵀ), by GMRES for the other (D + UVᵀ).
"""

import jax
import jax.numpy as jnp
import optax

import linsolve_prim as lp

SIZE, RANK = 40, 4


def matrix(key, symmetric):
    """A random member of the family."""
    first, second = jax.random.split(key)
    left, right = (
        jax.random.normal(jax.random.key(seed), (SIZE, RANK)) / SIZE**0.5 for seed in (100, 101)
    )
    strength = 10 * jnp.exp(0.1 * jax.random.normal(first, (RANK,)))
    noise = 0.03 * jax.random.normal(second, (SIZE,))
    diagonal = jnp.exp(jnp.linspace(0, 4, SIZE) + noise)
    root = jnp.sqrt(diagonal)
    coupling = (left * strength) @ (left if symmetric else right).T
    return root[:, None] * (jnp.eye(SIZE) + coupling) * root


def operator(key, symmetric):
    tags = lp.positive_semidefinite_tag if symmetric else ()
    return lp.MatrixLinearOperator(matrix(key, symmetric), tags)


def mean_condition(preconditioner, keys, symmetric):
    """The mean of log κ(MA)."""
    one = lambda key: lp.learn.condition_number_loss(operator(key, symmetric), preconditioner)
    return jnp.mean(jax.vmap(one)(keys))


def untrained(symmetric):
    return lp.learn.LearnedPreconditioner.untrained(
        jax.random.key(0), SIZE, RANK, symmetric=symmetric, scale=0.3, follows_diagonal=False
    )


def train(symmetric, rounds=400, batch=8):
    preconditioner = untrained(symmetric)
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, rounds))
    state = optimiser.init(preconditioner)

    @jax.jit
    def update(preconditioner, state, key):
        keys = jax.random.split(key, batch)
        gradient = jax.grad(mean_condition)(preconditioner, keys, symmetric)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(preconditioner, updates), state

    for key in jax.random.split(jax.random.key(1), rounds):
        preconditioner, state = update(preconditioner, state, key)
    return preconditioner


def mean_steps(preconditioner, keys, symmetric):
    """How many steps a Krylov method takes, on average."""
    solver = lp.CG(rtol=1e-6) if symmetric else lp.GMRES(rtol=1e-6, restart=SIZE)
    options = {} if preconditioner is None else {"preconditioner": preconditioner}
    b = jnp.ones(SIZE)
    one = lambda key: lp.linear_solve(operator(key, symmetric), b, solver, options=options)
    return float(jnp.mean(jax.vmap(one)(keys).stats["num_steps"]))


def main(symmetric=True):
    unseen = jax.random.split(jax.random.key(2), 20)
    tried = {
        "none": None,
        "Jacobi": lp.preconditioners.Jacobi(),
        "untrained": untrained(symmetric),
        "trained": train(symmetric),
    }
    steps = {name: mean_steps(m, unseen, symmetric) for name, m in tried.items()}
    for name, value in steps.items():
        print(f"{name:10} {value:6.1f} steps of {'CG' if symmetric else 'GMRES'}")
    return steps


if __name__ == "__main__":
    main(symmetric=True)
    main(symmetric=False)
