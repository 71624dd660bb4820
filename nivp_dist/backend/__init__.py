"""Settings of jax that must be made before the first array: every module that uses jax imports this package first."""

import os
from importlib import metadata

import jax

jax.config.update("jax_enable_x64", True)

# By default a GPU rounds the entries of float32 matrices to 10 bits of their 23 before it multiplies them (TF32), and a
# TPU to 7 bits (bfloat16). "highest" keeps all bits. Where less is wanted, the setting solver.precision asks for it.
jax.config.update("jax_default_matmul_precision", "highest")

# The newer code generator of XLA for CPUs compiles our programs half as long again as the older one, and they run no
# faster (measured with jaxlib 0.10, compile times on one core: advection_2d 25 s and 18 s, burgers_front_5d 26 s and
# 20 s). jaxlib aborts at a flag that it does not know, and only the versions 0.10 are known to have this one.
_NEW_CPU_COMPILER = "xla_cpu_use_fusion_emitters"
if metadata.version("jaxlib").startswith("0.10.") and _NEW_CPU_COMPILER not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{_NEW_CPU_COMPILER}=false".strip()
