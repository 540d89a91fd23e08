"""Krylov methods: solvers that know the operator by its products alone.

Each method's file holds one class with its settings and one function, the *cycle*: the published
iteration for a correction d with Ad ≈ r. What is the same for all stands beside them: the settings
and their checks, states and options (`base.py`), tolerances and statistics (`stopping.py`), and the
loop over cycles, which alone judges by the true residual (`cycles.py`).
"""

from .bicgstab import BiCGStab as BiCGStab
from .cg import CG as CG
from .gmres import GMRES as GMRES
from .lsmr import LSMR as LSMR
from .stopping import default_rtol as default_rtol
