"""`SolveTape` records every solve in its block (S0-44…47, S4-13, S4-17)."""

import logging
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linsolve_prim as lp
from linsolve_prim.results import REASONS, member_name

N = 12
A = 4 * np.eye(N) - np.eye(N, k=1) - 0.5 * np.eye(N, k=-1)
B = np.arange(1.0, N + 1)


def pressure(b, solver=lp.GMRES(rtol=1e-5)):
    return lp.linear_solve(
        lp.MatrixLinearOperator(jnp.asarray(A)), b, solver, name="pressure"
    ).value


def loss(b):
    return jnp.sum(pressure(b) ** 2)


def kinds(tape):
    return [entry.kind for entry in tape]


def steps(entry):
    return np.asarray(entry.stats["num_steps"])


BOTH = ["forward", "adjoint"]
SITUATIONS = {
    "eager": (lambda b: pressure(b), ["forward"]),
    "simple": (lambda b: lp.solve(A, b, name="pressure"), ["forward"]),
    "jit": (jax.jit(pressure), ["forward"]),
    "grad": (jax.grad(loss), BOTH),
    "jit of grad": (jax.jit(jax.grad(loss)), BOTH),
    "grad of jit": (jax.grad(jax.jit(loss)), BOTH),
    "jvp": (lambda b: jax.jvp(loss, (b,), (b,)), ["forward", "tangent"]),
    "vmap of grad": (lambda b: jax.vmap(jax.grad(loss))(jnp.stack([b, 0 * b])), BOTH),
    "scan": (
        lambda b: jax.lax.scan(lambda x, _: (pressure(x), None), b, length=3),
        ["forward"] * 3,
    ),
    "checkpoint": (jax.jit(jax.grad(jax.checkpoint(loss))), ["forward", "forward", "adjoint"]),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_solve_once_also_around_cached_programs_S0_44(name):
    run, expected = SITUATIONS[name]
    b = jnp.asarray(B)
    jax.block_until_ready(run(b))  # compiled before, without recording
    for _ in range(2):  # and compiled with it
        with lp.SolveTape() as tape:
            run(b)
        if name == "checkpoint":  # XLA may find that both forward solves are one
            assert kinds(tape) in (expected, BOTH)
        else:
            assert kinds(tape) == expected
        assert all(entry.name == "pressure" for entry in tape)
        for entry in tape:
            assert member_name(entry.result) is not None
            assert np.all(entry.stats["relative_residual"] <= 1e-5)
    run(b)
    assert len(tape) == len(kinds(tape))  # nothing is added after the block


def test_entries_hold_what_the_solve_returned_S0_46():
    """S0-46, S4-11."""
    b = jnp.asarray(B)
    operator = lp.MatrixLinearOperator(jnp.asarray(A))
    with lp.SolveTape(values=True) as tape:
        solution = lp.linear_solve(operator, b, lp.GMRES(), name="eager")
        jax.jit(lambda b: lp.linear_solve(operator, b, lp.GMRES(), name="jitted").value)(b)
    for entry in tape:
        assert entry.stats.keys() == solution.stats.keys()
        assert entry.result == lp.RESULTS.successful
        assert entry.solver.startswith("GMRES(")
        np.testing.assert_array_equal(steps(entry), solution.stats["num_steps"])
        np.testing.assert_allclose(entry.value, solution.value, rtol=1e-6)
        assert member_name(entry.stats["reason"], REASONS) == "rtol"


def test_index_by_position_and_name_S0_45():
    """S0-45."""
    with lp.SolveTape() as tape:
        jax.grad(lambda b: jnp.sum(lp.solve(A, pressure(b), name="second") ** 2))(jnp.asarray(B))
    assert tape["pressure"].kind == tape["second"].kind == "forward"
    assert tape[0] is tape["pressure"]
    assert tape[-1] is tape.named("pressure")[1]
    assert [entry.kind for entry in tape.named("second")] == BOTH
    assert len(tape[1:3]) == 2
    assert len(tape) == len(list(tape)) == 4
    with pytest.raises(KeyError, match=r"no solve is named 'third'.*'pressure', 'second'"):
        tape["third"]
    text = repr(tape)
    assert "pressure" in text
    assert "adjoint" in text
    assert len(text.splitlines()) == 5
    assert repr(lp.SolveTape()) == "SolveTape: no solves"


def test_inside_of_jit_entries_are_traced_values_S0_44():
    @jax.jit
    def f(b):
        with lp.SolveTape(values=True) as tape:
            gradient = jax.grad(loss)(b)
        assert kinds(tape) == BOTH
        assert "traced" in repr(tape)
        return gradient, [entry.stats["num_steps"] for entry in tape], tape[0].value

    b = jnp.asarray(B)
    gradient, counts, x = f(b)
    with lp.SolveTape() as outer:
        expected = jax.grad(loss)(b)
    assert [int(n) for n in counts] == [int(steps(entry)) for entry in outer]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)
    np.testing.assert_allclose(x, pressure(b), rtol=1e-4)
    with lp.SolveTape() as outer:
        f(b)
    assert kinds(outer) == BOTH


def test_lanes_of_a_batch_are_one_entry_S0_46():
    bs = jnp.stack([jnp.asarray(B), jnp.zeros(N), jnp.ones(N)])
    for f in (jax.vmap(pressure), jax.jit(jax.vmap(pressure))):
        with lp.SolveTape() as tape:
            f(bs)
        (entry,) = tape
        assert steps(entry).shape == (3,)
        assert steps(entry)[1] == 0
        assert steps(entry)[0] > 3
        assert "0 … " in repr(tape)


def test_failed_solves_are_recorded_S4_13(quiet_callbacks):
    few = lp.GMRES(max_steps=2)
    with lp.SolveTape() as tape:
        with pytest.raises(lp.NotConverged):
            pressure(jnp.asarray(B), few)
        with pytest.raises(Exception, match="NotConverged"):
            jax.block_until_ready(jax.jit(lambda b: pressure(b, few))(jnp.asarray(B)))
        lp.linear_solve(
            lp.MatrixLinearOperator(jnp.asarray(A)), jnp.asarray(B), few, throw=False, name="quiet"
        )
    assert [entry.name for entry in tape] == ["pressure", "pressure", "quiet"]
    for entry in tape:
        assert entry.result == lp.RESULTS.max_steps_reached
        assert steps(entry) == 2


def test_whole_paths_S0_47():
    solver = lp.CG(rtol=1e-5)
    operator = lp.MatrixLinearOperator(jnp.asarray(A + A.T), lp.positive_semidefinite_tag)
    run = jax.jit(lambda b: lp.linear_solve(operator, b, solver).value)
    b = jnp.asarray(B)
    with lp.SolveTape(record_trajectories=True, max_length=40) as tape:
        x = run(b)
    stats = tape[0].stats
    count = int(stats["history_length"])
    assert stats["history"].shape == (41,)
    assert stats["iterates"].shape == (41, N)
    assert count == steps(tape[0]) + 1
    residuals = np.linalg.norm(B - stats["iterates"] @ (A + A.T).T, axis=1)
    np.testing.assert_allclose(stats["history"][:count], residuals[:count], rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(stats["iterates"][-1], x, rtol=1e-6)
    with pytest.raises(ValueError, match="max_length: must be at least 1; got 0"):
        lp.SolveTape(max_length=0)


def test_recording_compiles_once_more_and_leaves_the_first_program_alone():
    """Recording costs nothing when off (the third law of every solve)."""
    count = []

    @jax.jit
    def f(b):
        count.append(1)
        return pressure(b)

    b = jnp.asarray(B)
    f(b)
    for _ in range(2):
        with lp.SolveTape():
            f(b)
        f(b)
    assert len(count) == 2
    silent = lambda b: lp.solve(A, b, throw=False)
    assert "callback" not in jax.jit(silent).lower(b).as_text()
    with lp.SolveTape():
        assert "callback" in jax.jit(silent).lower(b).as_text()


def test_nested_tapes_and_other_threads():
    b = jnp.asarray(B)
    with lp.SolveTape() as outer:
        pressure(b)
        with lp.SolveTape() as inner:
            jax.jit(pressure)(b)
    assert len(outer) == 2
    assert len(inner) == 1
    with lp.SolveTape() as tape:
        thread = threading.Thread(target=lambda: pressure(b))
        thread.start()
        thread.join()
    assert len(tape) == 0


def test_debug_log_tells_what_is_solved_and_how_it_went_S0_43(caplog):
    """S0-43: from compiled code as well."""
    with caplog.at_level(logging.DEBUG, "linsolve_prim"), lp.SolveTape():
        jax.jit(lambda b: pressure(b, lp.GMRES(restart=11)))(jnp.asarray(B))
    text = caplog.text
    assert "solve pressure: MatrixLinearOperator 12×12" in text
    assert "restart=11" in text
    assert "successful" in text
    assert "forward" in text


def test_convergence_is_drawn_from_tapes_solutions_and_arrays():
    plt = pytest.importorskip("matplotlib.pyplot")
    b = jnp.asarray(B)
    solver = lp.GMRES(rtol=1e-5, max_steps=30, history=True)
    with lp.SolveTape() as tape:
        jax.grad(lambda b: jnp.sum(pressure(b, solver) ** 2))(b)
    ax = lp.diagnostics.plot_convergence(tape)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["pressure GMRES forward", "pressure GMRES adjoint"]
    for line, entry in zip(ax.lines, tape):
        np.testing.assert_allclose(
            line.get_ydata(), entry.stats["history"][: entry.stats["history_length"]]
        )
    solve = lambda b: lp.linear_solve(lp.MatrixLinearOperator(jnp.asarray(A)), b, solver)
    assert len(lp.diagnostics.plot_convergence([solve(b), tape[0]]).lines) == 2
    lanes = jax.vmap(lambda b: solve(b).stats)(jnp.stack([b, 2 * b]))
    assert len(lp.diagnostics.plot_convergence(lanes, relative=True).lines) == 2
    curve = lp.diagnostics.plot_convergence(np.array([4.0, 2.0, 0.0]), relative=True).lines[0]
    np.testing.assert_array_equal(curve.get_ydata(), [1.0, 0.5, np.nan])
    with pytest.raises(ValueError, match="what: holds no history"):
        lp.diagnostics.plot_convergence(lp.SolveTape())
    plt.close("all")
