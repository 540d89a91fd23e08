"""Determinants, their logarithms and derivatives; traces."""

from .slogdet import SLogDet as SLogDet
from .slogdet import logdet as logdet
from .slogdet import slogdet as slogdet
from .stochastic import LogDetEstimate as LogDetEstimate
from .stochastic import stochastic_logdet as stochastic_logdet
from .traces import trace as trace
