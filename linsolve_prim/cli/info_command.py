"""`python -m linsolve_prim info`: versions, devices and the table of solvers."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform

import jax

import linsolve_prim as lp

from . import SUCCESS
from .report import row

_PACKAGES = ("jax", "jaxlib", "equinox", "numpy", "scipy")


def run(arguments: argparse.Namespace) -> int:
    """Print what one needs to know to reproduce a result, and what solvers there are."""
    del arguments
    row("linsolve_prim", lp.__version__)
    row("python", f"{platform.python_version()} on {platform.platform()}")
    for package in _PACKAGES:
        row(package, importlib.metadata.version(package))
    for device in jax.devices():
        row("device", f"{device} ({device.device_kind})")
    row("x64", "on" if jax.config.read("jax_enable_x64") else "off (`solve` and `demo` turn it on)")
    print()
    print(lp.list_solvers())
    return SUCCESS
