"""Looking at solves: the tape, the exceptions of compiled programs, progress."""

from .errors import original_errors as original_errors
from .tape import Record as Record, SolveTape as SolveTape
