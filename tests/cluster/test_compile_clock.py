"""The time spent on building programs, from the events that jax sends."""

import jax
import jax.numpy as jnp
import pytest

from nivp_dist.cluster.compile_clock import CompileClock


def test_intervals_inside_others_count_once():
    clock = CompileClock(now=lambda: now)
    for now, event, duration in (
        (1.0, "jaxpr_trace_duration", 0.5),
        (2.0, "jaxpr_trace_duration", 0.25),
        (3.0, "jaxpr_trace_duration", 2.5),  # of a program that contains both of the above
        (3.5, "jaxpr_to_mlir_module_duration", 0.5),
        (7.0, "backend_compile_duration", 2.0),
    ):
        clock.listen(f"/jax/core/compile/{event}", duration)
    clock.listen("/jax/checkpoint/write/duration_sec", 100.0)
    assert clock.seconds == 2.5 + 0.5 + 2.0


def test_an_outer_interval_that_seems_to_begin_after_the_inner_one_includes_it():
    """Both begin together; the outer one is reported some microseconds later, and its start is computed from that."""
    clock = CompileClock(now=lambda: now)
    for now, duration in ((1.0, 1.0), (2.125, 2.0)):
        clock.listen("/jax/core/compile/jaxpr_trace_duration", duration)
    assert clock.seconds == 2.125


def test_the_time_of_a_program_is_measured_inside_the_context_only():
    with CompileClock() as clock:
        assert clock.seconds == 0
        jax.jit(lambda x: x * 19.0)(jnp.ones(1238))
        seconds = clock.seconds
        assert seconds > 0
        jax.jit(lambda x: x)  # no program is built before the first call
        assert clock.seconds == seconds
    jax.jit(lambda x: x * 23.0)(jnp.ones(1239))
    assert clock.seconds == seconds


def test_an_exception_ends_the_measurement():
    with pytest.raises(RuntimeError), CompileClock() as clock:
        raise RuntimeError
    jax.jit(lambda x: x * 29.0)(jnp.ones(1240))
    assert clock.seconds == 0
