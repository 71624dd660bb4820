"""Value, gradient and Laplacian of a function of one point in one pass: the forward Laplacian.

Every intermediate array a of u carries its value, its Jacobian (k, ...) along k directions and its Laplacian through
one evaluation of u (Li et al. 2023, arXiv 2307.08214):

    grad f(a) = Df . grad a,      lap f(a) = Df . lap a + sum_k D^2 f(grad_k a, grad_k a),

where the sum vanishes for linear f. Nested forward mode takes the first and the second derivative of every array along
every direction, 2 k products with a dense layer; here they are k + 1. It differs from the published method in that two
structures are kept while they last:

- An array that is computed elementwise from another has the same Jacobian up to a factor for each entry. An activation
  with all its parts (swish: a sigmoid and a product) then costs as much as the layer's values, not k times that.
- Entries that depend on few coordinates, such as those of an embedding or a quadratic form, store only these
  derivatives. The layer above then costs k times less.

An operation without a rule is differentiated by nested forward mode on its own, so that every function works. The
result consists of ordinary operations: it can be batched, compiled, sharded and differentiated again.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from nivp_dist.problems._jets import (
    BaseJacobian,
    Jet,
    bind,
    contract_jacobian,
    move_entries,
    multiply_jacobian,
    seed,
    shared_slots,
    summed_by_direction,
    value_of,
    with_static_values,
)

ELEMENTWISE = frozenset(
    "abs acos acosh add add_any asin asinh atan atan2 atanh cbrt clamp copy cos cosh digamma div erf erf_inv erfc exp "
    "exp2 expm1 integer_pow lgamma log log1p logistic max min mul name neg pow pvary rsqrt select_n sign sin sinh sqrt "
    "square sub tan tanh".split()
)
COMPARISONS = frozenset("and eq ge gt is_finite le lt ne not or".split())  # inside elementwise functions
# Every entry of the result is an entry of one operand.
STRUCTURAL = frozenset(
    "broadcast_in_dim concatenate convert_element_type dynamic_slice expand_dims gather pad reshape rev slice squeeze "
    "stack transpose".split()
)
LINEAR = STRUCTURAL | frozenset("add add_any copy cumsum neg pvary reduce_sum select_n sub".split())
INLINED = frozenset("checkpoint closed_call core_call custom_vjp_call jit pjit remat remat2".split())


def propagate(u, x, drift=None, noise=None):
    """u, its derivatives along given directions, and a second-order operator of it, at one point x (d,).

    Args:
        u: a function of one point, with a result of any shape.
        drift: b (d,), default zero.
        noise: B (d, k). Zeros in a numpy array save work; those in a jax array are not seen. Default: the identity.

    Returns:
        u(x), the derivatives B^T grad u (k, ...), and b . grad u + tr(B B^T Hess u), of the shape of u(x).
    """
    x = jnp.asarray(x)
    zero = jnp.zeros_like(x)  # under shard_map all arrays made here must vary over the mesh as x does
    rows, index = seed(np.eye(x.size) if noise is None else noise)
    base = BaseJacobian(jnp.asarray(rows, x.dtype) + zero, index, noise.shape[1] if noise is not None else x.size)
    jet = Jet(x, None, base, None if drift is None else jnp.asarray(drift, x.dtype) + zero)
    closed = jax.make_jaxpr(u)(x)
    (result,) = _evaluate(closed.jaxpr, closed.consts, [jet])
    if isinstance(result, Jet):
        return result.value, result.jacobian, result.laplacian_array
    value = jnp.asarray(value_of(result))  # u does not depend on the point
    return value, jnp.zeros((base.count, *value.shape), value.dtype), jnp.zeros_like(value)


# Evaluation ----------------------------------------------------------------------------------------


def _evaluate(jaxpr, consts, inputs):
    """The outputs of a jaxpr, whose inputs may be Jets."""
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))
    read = lambda atom: atom.val if isinstance(atom, core.Literal) else known[atom]  # noqa: E731
    for eqn in jaxpr.eqns:
        if not all(isinstance(var, core.DropVar) for var in eqn.outvars):
            known.update(zip(eqn.outvars, _apply(eqn, [read(atom) for atom in eqn.invars]), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(eqn, inputs):
    """The outputs of one operation, as a list; inputs may be Jets, Statics or arrays."""
    name = eqn.primitive.name
    has_jets = any(isinstance(entry, Jet) for entry in inputs)
    if has_jets and name in INLINED:
        inner = next(eqn.params[key] for key in ("jaxpr", "call_jaxpr") if key in eqn.params)
        closed = isinstance(inner, core.ClosedJaxpr)
        return _evaluate(inner.jaxpr if closed else inner, inner.consts if closed else [], inputs)
    floating = [jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in eqn.outvars]
    if not has_jets or not any(floating) or name == "stop_gradient":
        outputs = bind(eqn, [value_of(entry) for entry in inputs])
        return outputs if any(floating) else with_static_values(eqn, inputs, outputs)
    return _apply_rule(eqn, inputs, floating)


def _apply_rule(eqn, inputs, floating):
    """As ``_apply``, of an operation that depends on the point: by the most special rule that there is."""
    name = eqn.primitive.name
    where = [i for i, entry in enumerate(inputs) if isinstance(entry, Jet)]
    jets, values = [inputs[i] for i in where], [value_of(entry) for entry in inputs]

    def function(*operands):
        """The operation as a function of its operands that are Jets."""
        replaced = dict(zip(where, operands))
        return bind(eqn, [replaced.get(i, value) for i, value in enumerate(values)])

    if _is_elementwise(eqn, jets):
        jets = [jet.broadcast(eqn.outvars[0].aval.shape) for jet in jets]
        if all(jet.base is jets[0].base for jet in jets):
            return [_along_one_base(function, jets)]
        shared = shared_slots(jets)
        if shared is not None:
            index, rows = shared
            return _chain(function, jets, rows, [summed_by_direction(row, index) for row in rows], index=index)
    if name == "reduce_prod":
        pairs = jax.make_jaxpr(partial(_product, axes=eqn.params["axes"]))(values[0])
        return _evaluate(pairs.jaxpr, pairs.consts, inputs)
    if name in LINEAR or (len(jets) == 1 and (name in ("mul", "dot_general") or (name == "div" and where == [0]))):
        kept = _with_few_entries(eqn, inputs, jets, where, values)
        if kept is not None:
            return [_linear(function, jets, *kept)]
        along = jax.vmap(lambda *t: jax.jvp(function, tuple(jet.value for jet in jets), t)[1][0])
        return [_linear(function, jets, along(*[jet.jacobian for jet in jets]))]
    rows = [jet.jacobian for jet in jets]
    return _chain(function, jets, rows, rows, floating)


def _with_few_entries(eqn, inputs, jets, where, values):
    """(rows, index) or (rows,) of a linear operation on sparse Jacobians; None if there is no rule for it."""
    if any(jet.base.index is None for jet in jets):
        return None
    if eqn.primitive.name in STRUCTURAL:
        return move_entries(eqn, inputs)
    product = None
    if eqn.primitive.name == "dot_general":
        product = multiply_jacobian(eqn, jets[0], where[0], values[1 - where[0]])
    elif eqn.primitive.name == "reduce_sum":
        axes, value = eqn.params["axes"], jets[0].value
        product = contract_jacobian(jets[0], axes, jnp.ones([value.shape[axis] for axis in axes], value.dtype))
    return None if product is None else (product,)


def _is_elementwise(eqn, jets) -> bool:
    """Whether the operation has one real output, every entry of which is a function of the same entry of the Jets,
    after these are broadcast.

    A function with a derivative of its own (softplus, relu) is one operation, so that this derivative is used.
    """
    outputs = [var.aval for var in eqn.outvars]
    alike = all(jet.value.dtype == outputs[0].dtype for jet in jets)
    return len(outputs) == 1 and alike and jnp.issubdtype(outputs[0].dtype, jnp.floating) and _is_by_entries(eqn)


def _is_by_entries(eqn) -> bool:
    if eqn.primitive.name in ("custom_jvp_call", "jit", "pjit"):
        inner = eqn.params["call_jaxpr" if "call_jaxpr" in eqn.params else "jaxpr"].jaxpr
        return all(map(_is_by_entries, inner.eqns))
    return eqn.primitive.name in ELEMENTWISE or eqn.primitive.name in COMPARISONS


# Rules ----------------------------------------------------------------------------------------------


def _along_one_base(function, jets):
    """The rule of an elementwise function of arrays whose Jacobians are multiples s_i of one base.

    The derivative of D f(a + e |base|^2 s) . (s + e lap a) in e at 0 is the Laplacian, both of its terms.
    """
    values, slopes = tuple(jet.value for jet in jets), tuple(jet.slope_array for jet in jets)
    shifts = tuple(jets[0].base.square * slope for slope in slopes)

    def along(values, slopes):
        return jax.jvp(function, values, slopes)[1][0]

    slope, laplacian = jax.jvp(along, (values, slopes), (shifts, tuple(jet.laplacian_array for jet in jets)))
    return Jet(function(*values)[0], slope, jets[0].base, laplacian)


def _chain(function, jets, rows, others, floating=(True,), index=None):
    """The rule of any operation, with sum_k D^2 f(rows_k, others_k) as the second term of the Laplacian.

    Args:
        rows, others: for each Jet an array (k, *its shape).
        floating: for each output whether it is real; the others are returned as arrays.
        index: the common index of sparse rows, None if they are dense.
    """
    values = tuple(jet.value for jet in jets)

    def smooth(*operands):
        return [output for output, is_float in zip(function(*operands), floating) if is_float]

    def along(direction, other):
        return jax.jvp(lambda *a: jax.jvp(smooth, a, direction)[1], values, other)

    rows, seconds = jax.vmap(along)(tuple(rows), tuple(others))
    firsts = jax.jvp(smooth, values, tuple(jet.laplacian_array for jet in jets))[1]
    derivatives = zip(rows, firsts, seconds)
    outputs = function(*values)
    for position, is_float in enumerate(floating):
        if is_float:
            row, first, second = next(derivatives)
            base = BaseJacobian(row, index, jets[0].base.count)
            outputs[position] = Jet(outputs[position], None, base, first + jnp.sum(second, axis=0))
    return outputs


def _linear(function, jets, rows, index=None):
    """The rule of a linear operation, given rows and index of its Jacobian."""
    values = tuple(jet.value for jet in jets)
    laplacian = None
    if any(jet.laplacian is not None for jet in jets):
        laplacian = jax.jvp(function, values, tuple(jet.laplacian_array for jet in jets))[1][0]
    return Jet(function(*values)[0], None, BaseJacobian(rows, index, jets[0].base.count), laplacian)


def _product(a, axes):
    """The product over some axes by pairs, made of elementwise operations, for which there are rules."""
    a = jnp.moveaxis(a, axes, range(len(axes)))
    a = a.reshape(-1, *a.shape[len(axes) :])
    while len(a) > 1:
        half = len(a) // 2
        a = jnp.concatenate([a[:half] * a[half : 2 * half], a[2 * half :]])
    return a[0] if len(a) else jnp.ones(a.shape[1:], a.dtype)
