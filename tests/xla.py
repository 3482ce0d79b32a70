"""XLA's flags for tests: programs here are small and run a few times, so they compile fast.

LLVM's passes and the MLIR of fusions took most of their tests' time: without both, the training
program of `test_sharding` compiles in 2.0 s of CPU time instead of 6.9 s (10.3 s optimised). The
README's test drops the flags, so that one whole study runs as it does for a user.
"""

FAST_COMPILE = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)


def xla_flags(devices: int) -> str:
    """Fast compilation for `devices` fake CPU devices."""
    return f"--xla_force_host_platform_device_count={devices} {FAST_COMPILE}"
