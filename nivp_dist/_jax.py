"""Import this before any use of jax: float64 must be switched on before the first array is made."""

import jax

jax.config.update("jax_enable_x64", True)
