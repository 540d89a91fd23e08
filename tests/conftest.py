"""Settings of the test run: strict promotion, one BLAS thread, x64 on unless `JAX_ENABLE_X64=0`.

`pytest --share K/N` runs the K-th of N parts of what would be run, by a checksum of the tests' names:
continuous integration runs another part of the slow tests for each commit.
"""

import itertools
import logging
import os
import pathlib
import zlib

from compiler_flags import QUICK_XLA_FLAGS

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("MPLBACKEND", "Agg")
# The tests compile far longer than they compute.
os.environ.setdefault("XLA_FLAGS", QUICK_XLA_FLAGS)

# Annotations are checked at run time if asked for: that takes a fifth of the time of all tests, and
# .ci/run asks for it where it runs a part of them in float32.
if os.environ.get("LINSOLVE_PRIM_TYPECHECK", "0") == "1":
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


def _share(text):
    """`K/N` as (K modulo N, N): any whole number picks a part."""
    try:
        part, of = map(int, text.split("/"))
        return part % of, of
    except (ValueError, ZeroDivisionError):
        raise pytest.UsageError(f"--share: must be K/N, two whole numbers; got {text!r}") from None


def pytest_addoption(parser):
    parser.addoption("--share", metavar="K/N", help="run the K-th of N parts of the tests")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if config.getoption("--share") is None:
        return
    part, of = _share(config.getoption("--share"))
    kept = [item for item in items if zlib.crc32(item.nodeid.encode()) % of == part]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


@pytest.fixture(autouse=True)
def _global_settings_stay(request):
    """B-09: nothing that a test does through the package changes JAX's configuration."""
    before = jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion
    yield
    assert (jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion) == before


_finished = itertools.count(1)


@pytest.fixture(autouse=True)
def _few_programs():
    """Forget compiled programs in time: each holds memory maps, and the kernel allows 65 530."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    # (reading them takes longer than many a test)
    if next(_finished) % 20 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > 40_000:
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
