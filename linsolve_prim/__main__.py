"""`python -m linsolve_prim`: the command line (see `linsolve_prim.cli`)."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
