"""Five steps of conjugate gradients whose coefficients are learned.

Problems: diffusion on a line of 60 points with random coefficients and random right-hand sides. The
five α and five β are trained on some and tried on others. CG takes the steps that are best for the
energy of the error; learned ones are better for the residual that they are trained on.
"""

import jax
import jax.numpy as jnp
import optax

import linsolve_prim as lp

SIZE, STEPS = 60, 5


def problem(key):
    """A tridiagonal system: its operator and a right-hand side."""
    first, second = jax.random.split(key)
    conductivity = jnp.exp(0.7 * jax.random.normal(first, (SIZE + 1,)))
    main = conductivity[:-1] + conductivity[1:] + 0.1
    off = -conductivity[1:-1]
    operator = lp.TridiagonalLinearOperator(main, off, off)
    tagged = lp.TaggedLinearOperator(operator, lp.positive_semidefinite_tag)
    return tagged, jax.random.normal(second, (SIZE,))


def mean_residual(solver, keys):
    """The mean of ‖b − Ax‖²/‖b‖² over problems."""

    def one(key):
        operator, b = problem(key)
        return lp.learn.residual_loss(operator, b, lp.solve(operator, b, solver, throw=False))

    return jnp.mean(jax.vmap(one)(keys))


def train(rounds=200, batch=32):
    solver = lp.learn.UnrolledCG.of_cg(STEPS)
    optimiser = optax.adam(1e-2)
    state = optimiser.init(solver)

    @jax.jit
    def update(solver, state, key):
        value, gradient = jax.value_and_grad(mean_residual)(solver, jax.random.split(key, batch))
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(solver, updates), state, value

    for key in jax.random.split(jax.random.key(0), rounds):
        solver, state, _ = update(solver, state, key)
    return solver


def main():
    unseen = jax.random.split(jax.random.key(1), 200)
    untrained, trained = lp.learn.UnrolledCG.of_cg(STEPS), train()
    cg = lp.CG(rtol=0.0, atol=0.0, max_steps=STEPS)
    solvers = {"CG(5)": cg, "untrained": untrained, "trained": trained}
    residuals = {name: float(mean_residual(s, unseen)) for name, s in solvers.items()}
    for name, value in residuals.items():
        print(f"{name:10} mean squared relative residual {value:.3e}")
    return residuals


if __name__ == "__main__":
    main()
