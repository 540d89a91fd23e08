"""Determinants, their logarithms and derivatives; traces."""

from .slogdet import SLogDet as SLogDet, logdet as logdet, slogdet as slogdet
from .stochastic import LogDetEstimate as LogDetEstimate, stochastic_logdet as stochastic_logdet
from .traces import trace as trace
