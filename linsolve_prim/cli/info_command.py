"""`python -m linsolve_prim info`: versions, devices, host libraries, their factors, and solvers."""

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
    _host()
    print()
    print(lp.list_solvers())
    return SUCCESS


def _host() -> None:
    """The libraries on the host, and what their factorizations may take."""
    for library in lp.host.available():
        what = f"{library.module} {library.version} ({library.licence})"
        row("host library", f"{library.solver}: {what}")
    registry = lp.host.registry
    row("factors", f"{registry.stats()['live']} kept, of at most {registry.budget / 2**30:.1f} GiB")
