"""Flags with which XLA compiles in half the time what will run once (they must be set before JAX starts).

Measured on tests/test_second_order.py, in CPU seconds: 100 % without, 79 % with one module instead of
one for each thread, 45 % without the emitters of fusions as well. The flag for these is of JAX before
0.11, where they took three times as long as what they replaced.
"""

import importlib.metadata

QUICK_XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if tuple(map(int, importlib.metadata.version("jax").split(".")[:2])) < (0, 11):
    QUICK_XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"


def on_devices(count: int) -> str:
    """The same, on so many devices of the CPU."""
    return f"{QUICK_XLA_FLAGS} --xla_force_host_platform_device_count={count}"
