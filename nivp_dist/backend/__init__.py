"""Import this before any use of jax: some settings must be made before the first array is."""

import os
from importlib import metadata

import jax

jax.config.update("jax_enable_x64", True)

# Unasked, a GPU multiplies float32 matrices with ten bits of their 23 (tf32), a TPU with seven: float32 shall be
# float32 wherever a program runs. What may be coarser says so (``solver.precision``).
jax.config.update("jax_default_matmul_precision", "highest")

# XLA's newer code generator for CPUs builds our programs in half as long again as the one before it (advection 25 s and
# 18 s, a front in five dimensions 26 s and 20 s), and they run no faster. A flag that jaxlib does not know ends the
# process: this one is known of 0.10.
_OLDER = "xla_cpu_use_fusion_emitters"
if metadata.version("jaxlib").startswith("0.10.") and _OLDER not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{_OLDER}=false".strip()
