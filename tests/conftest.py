"""Settings of the test run: strict promotion, one BLAS thread, x64 on unless `JAX_ENABLE_X64=0`."""

import logging
import os
import pathlib
import zlib

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("MPLBACKEND", "Agg")
# The tests compile far longer than they compute: LLVM need not optimise what runs once.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

if os.environ.get("LINSOLVE_PRIM_TYPECHECK", "1") == "1":
    from jaxtyping import install_import_hook

    # Not the public interface: there, wrong types must meet our own messages.
    CHECKED = ("operators", "solvers", "primitive", "testing", "_tree", "_norms", "_static")
    install_import_hook(
        [f"linsolve_prim.{part}" for part in CHECKED], "beartype.beartype"
    ).__enter__()

import jax
import numpy as np
import pytest

X64 = os.environ["JAX_ENABLE_X64"] not in ("0", "false", "False")


@pytest.fixture(autouse=True)
def _global_settings_stay(request):
    """B-09: nothing that a test does through the package changes JAX's configuration."""
    before = jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion
    yield
    assert (jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion) == before


@pytest.fixture(autouse=True)
def _few_programs():
    """Forget compiled programs in time: each holds memory maps, and the kernel allows 65 530."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 40_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def _same_numbers(request):
    """A test's random numbers do not depend on which tests ran before it, in which process."""
    for shared in vars(request.module).values():
        if isinstance(shared, np.random.Generator):
            seed = zlib.crc32(request.node.nodeid.encode())
            shared.bit_generator.state = np.random.default_rng(seed).bit_generator.state


@pytest.fixture
def quiet_callbacks():
    """JAX logs the traceback of every exception in a callback."""
    logger = logging.getLogger("jax")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory, so that paths in messages are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
