"""Time spent on building programs, by events as jax sends them."""

import jax
import jax.numpy as jnp
import pytest

from nivp_dist.cluster.compile_clock import CompileClock


def test_time_inside_time_counts_once():
    clock = CompileClock(now=lambda: now)
    for now, event, duration in (
        (1.0, "jaxpr_trace_duration", 0.5),
        (2.0, "jaxpr_trace_duration", 0.25),
        (3.0, "jaxpr_trace_duration", 2.5),  # of the program around both, which begins with the first
        (3.5, "jaxpr_to_mlir_module_duration", 0.5),
        (7.0, "backend_compile_duration", 2.0),
    ):
        clock.listen(f"/jax/core/compile/{event}", duration)
    clock.listen("/jax/checkpoint/write/duration_sec", 100.0)
    assert clock.seconds == 2.5 + 0.5 + 2.0


def test_starts_need_not_be_exact():
    """The outer of two that begin together is reported later, and so seems to begin after the inner one."""
    clock = CompileClock(now=lambda: now)
    for now, duration in ((1.0, 1.0), (2.125, 2.0)):
        clock.listen("/jax/core/compile/jaxpr_trace_duration", duration)
    assert clock.seconds == 2.125


def test_a_program_is_noticed_inside_the_context():
    with CompileClock() as clock:
        assert clock.seconds == 0
        jax.jit(lambda x: x * 19.0)(jnp.ones(1238))
        seconds = clock.seconds
        assert seconds > 0
        jax.jit(lambda x: x)  # none is built
        assert clock.seconds == seconds
    jax.jit(lambda x: x * 23.0)(jnp.ones(1239))
    assert clock.seconds == seconds


def test_it_ends_with_what_it_times():
    with pytest.raises(RuntimeError), CompileClock() as clock:
        raise RuntimeError
    jax.jit(lambda x: x * 29.0)(jnp.ones(1240))
    assert clock.seconds == 0
