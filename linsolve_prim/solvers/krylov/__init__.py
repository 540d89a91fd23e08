"""Krylov methods: solvers that know the operator by its products alone.

Each method's file holds one class with its settings and its *cycle*: the published iteration for a
correction d with Ad ≈ r. What is the same for all stands beside them: settings, states and options
(`base.py`), what a cycle sees of the system (`system.py`), tolerances and statistics
(`stopping.py`), histories (`history.py`), known null spaces (`nullspace.py`), and the loop over
cycles, which alone judges by the true residual (`cycles.py`).
"""

from .bicg import CGS as CGS, BiCG as BiCG
from .bicgstab import BiCGStab as BiCGStab
from .cg import CG as CG
from .cgls import CGLS as CGLS
from .craig import CRAIG as CRAIG
from .fcg import FCG as FCG, CGAdaptive as CGAdaptive
from .fgmres import FGMRES as FGMRES
from .gcrot import GCROT as GCROT, RecycledSpace as RecycledSpace
from .gmres import GMRES as GMRES
from .idr import IDR as IDR
from .lgmres import LGMRES as LGMRES
from .lsmr import LSMR as LSMR
from .lsqr import LSQR as LSQR
from .minres import MINRES as MINRES
from .minresqlp import MINRESQLP as MINRESQLP
from .nullspace import NullSpace as NullSpace
from .qmr import QMR as QMR, TFQMR as TFQMR
from .refinement import IterativeRefinement as IterativeRefinement
from .stationary import Chebyshev as Chebyshev, Richardson as Richardson
from .stopping import default_rtol as default_rtol
from .symmlq import SYMMLQ as SYMMLQ
