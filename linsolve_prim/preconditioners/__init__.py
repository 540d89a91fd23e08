"""Preconditioners: operators that approximate A⁻¹, made from A."""

from .base import AbstractPreconditioner

__all__ = ["AbstractPreconditioner"]
