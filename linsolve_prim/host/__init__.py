"""Libraries on the host: the registry of their factorizations, and the way there and back."""

from .available import available
from .bridge import transport
from .registry import Registry, registry
from .tasks import Refused, Solved

__all__ = ["Refused", "Registry", "Solved", "available", "registry", "transport"]
