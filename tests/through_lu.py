"""A solver that hands everything on to `LU`, for tests that watch or spoil one of its methods."""

import linsolve_prim as lp


class ThroughLU(lp.AbstractLinearSolver):
    def init(self, operator, options):
        return lp.LU().init(operator, options)

    def compute(self, state, vector, options):
        return lp.LU().compute(state, vector, options)

    def transpose(self, state, options):
        return lp.LU().transpose(state, options)

    def conj(self, state, options):
        return lp.LU().conj(state, options)

    def assume_full_rank(self):
        return True
