"""Looking at solves: the tape, the exceptions of compiled programs, progress."""

from .tape import Record as Record
from .tape import SolveTape as SolveTape
