"""Every editor's shift, and its gradient, against the formulas of METHODS sections 4 and 6 written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.edit import hypernet, normalizer
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import LEARNED_RIDGE, NORMALISED_RIDGE, PSEUDO_PRODUCT
from emsedit_jax.edit.step import shift_of
from emsedit_jax.meta.methods import METHODS
from emsedit_jax.types import NormStats, Trace
from tests.tiny_lm import SITES, assert_close, worn

GROUP = SITES[0]
S, N, K, V = 2, 5, GROUP.k, GROUP.v
C = K + V
SPEC = NetSpec(rank=3, n_blocks=2, lr=0.05)
USED = np.arange(N) < N - 1  # the last row is unused
RNG = np.random.default_rng(0)
KEYS, GRADS = (RNG.normal(size=(S, N, width)) * USED[:, None] for width in (K, V))
MEAN, VAR, COUNT = RNG.normal(size=C), RNG.uniform(0.5, 2, size=C), 40
STATS = NormStats(jnp.int32(COUNT), jnp.asarray(MEAN, jnp.float32), jnp.asarray(VAR, jnp.float32))
COTANGENT = np.random.default_rng(7).normal(size=(S, K, V))
LEARNED = [name for name, method in METHODS.items() if method.learned]
LEARNED_RULES = {METHODS[name].rule for name in LEARNED}
shift_by = jax.jit(shift_of, static_argnums=(0, 1, 2))


def trace(n: int = N) -> Trace:
    keys, grads = (jnp.asarray(rows[:, :n], jnp.float32) for rows in (KEYS, GRADS))
    return Trace((keys,), (grads,), jnp.asarray(USED[:n]), jnp.zeros(()), jnp.zeros(1))


def shift(rule, theta, given=None, stats=STATS, spec=SPEC):
    """The shift of one group of sites."""
    net = theta if rule in LEARNED_RULES else None
    return shift_by((GROUP,), rule, spec, (net,), (stats,), given or trace())[0][0]


@pytest.fixture(scope="module")
def theta():
    """A network whose every number is its own: learning rates, ridge coefficients and blocks too."""
    (net,) = hypernet.init((GROUP,), SPEC, jax.random.key(0))
    return worn(net, seed=1)


def network(theta):
    """(pseudo-keys, pseudo-gradients) of the normalised rows, by the formula of METHODS section 3."""
    deviation = np.sqrt(VAR * COUNT / (COUNT - 1))
    z_snc = (np.concatenate([KEYS, GRADS], axis=-1) - MEAN) / (deviation + np.finfo(np.float32).eps)
    for block in theta["blocks"].values() if theta else ():
        block = {name: np.asarray(array, np.float64) for name, array in block.items()}
        u_snc = np.maximum(z_snc @ block["A"] @ block["B"] + block["bias"], 0)
        z_snc = block["scale"][:, None] * u_snc + block["shift"][:, None] + z_snc
    return z_snc[..., :K], z_snc[..., K:]


def solution(y_snv, lambda_s):
    """(X^T X + lambda I)^-1 X^T Y, X the raw keys."""
    return np.linalg.solve(system(lambda_s), np.einsum("snk,snv->skv", KEYS, y_snv))


def system(lambda_s):
    return np.einsum("snk,snj->skj", KEYS, KEYS) + lambda_s[:, None, None] * np.eye(K)


def eta(theta):
    return np.asarray(theta["lr"], np.float64)[:, :, None]


def lambdas(theta):
    return np.exp(np.asarray(theta["lamda"], np.float64)[:, 0])


def learned_ridge(theta):
    keys, grads = network(theta)
    strength_sn1 = np.sum(KEYS * keys, axis=-1, keepdims=True)
    return solution(-eta(theta) * strength_sn1 * grads, lambdas(theta))


def normalised_ridge(_):
    keys, grads = network(None)
    strength_sn1 = np.sum(keys * keys, axis=-1, keepdims=True)
    return solution(-SPEC.lr * strength_sn1 * grads * USED[:, None], np.ones(S))


def pseudo_product(theta):
    keys, grads = network(theta)
    return np.einsum("snk,snv->skv", keys[:, USED], -eta(theta) * grads[:, USED])


BY_HAND = {LEARNED_RIDGE: learned_ridge, NORMALISED_RIDGE: normalised_ridge, PSEUDO_PRODUCT: pseudo_product}


@pytest.mark.parametrize("name", METHODS)
def test_the_shift_is_the_formula(name, theta):
    rule = METHODS[name].rule
    expected = BY_HAND[rule](theta)
    assert np.abs(expected).max() > 0.01
    assert_close(shift(rule, theta), expected, rel=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_unused_rows_change_nothing(name, theta):
    rule = METHODS[name].rule
    assert_close(shift(rule, theta), shift(rule, theta, trace(N - 1)))


@pytest.mark.parametrize("name", METHODS)
def test_both_forms_of_the_solve_give_the_shift(name, theta):
    """Rows of zeros, so many that the system is as wide as the keys: primal where it was dual."""
    rule = METHODS[name].rule

    def more(rows_sn):
        return jnp.pad(rows_sn, [(0, 0), (0, K - N + 3), (0, 0)])

    one = trace()
    longer = Trace((more(one.keys[0]),), (more(one.grads[0]),), jnp.arange(K + 3) < N - 1, one.loss, one.ce_a)
    assert N < K < longer.captured_n.shape[0]
    assert_close(shift(rule, theta, longer), shift(rule, theta))


def test_a_fresh_network_s_normaliser_may_be_empty():
    (net,) = hypernet.init((GROUP,), SPEC, jax.random.key(0))
    strength_sn1 = np.sum(KEYS * KEYS, axis=-1, keepdims=True)
    expected = solution(-SPEC.lr * strength_sn1 * GRADS, np.ones(S))
    assert_close(shift(LEARNED_RIDGE, net, stats=normalizer.init(C)), expected, rel=1e-4)


# ---- the gradient ----


def pulled_back(rule, theta, spec=SPEC):
    def pull(theta):
        return jax.vjp(lambda theta: shift(rule, theta, spec=spec), theta)[1](jnp.asarray(COTANGENT, jnp.float32))[0]

    return jax.jit(pull)(theta)


@pytest.mark.parametrize("name", LEARNED)
def test_the_gradient_is_that_of_the_closed_formula(name, theta):
    """U = (X^T X + lambda I)^-1 G, all but lambda through Y alone: sum <X U, Y>; dL/dlambda = -sum(U * Delta).

    Without a ridge it is that of sum(G * Delta).
    """
    rule = METHODS[name].rule
    u_skv = COTANGENT if rule.ridge is None else np.linalg.solve(system(lambdas(theta)), COTANGENT)

    def along(theta):
        seen = trace()
        rows = rule.rows(GROUP, SPEC, theta, STATS, seen.keys[0], seen.grads[0], seen.captured_n)
        x_snk = rows.x_snk if rule.ridge is None else KEYS
        return jnp.sum(jnp.einsum("snk,skv->snv", x_snk, jnp.asarray(u_skv, jnp.float32)) * rows.y_snv)

    with jax.default_matmul_precision("highest"):
        expected = jax.jit(jax.grad(along))(theta)
    lamda = np.zeros(S) if rule.ridge is None else -lambdas(theta) * np.sum(u_skv * BY_HAND[rule](theta), axis=(1, 2))
    found = pulled_back(rule, theta)
    assert_close(found, expected | {"lamda": lamda[:, None]}, rel=1e-4)
    assert all(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(found | {"lamda": jnp.ones(S)}))


FRESH = SPEC._replace(n_blocks=1)  # one block that gives back its input


@pytest.fixture(scope="module")
def fresh():
    """A fresh network with learning rates and ridge coefficients of each site's own."""
    (net,) = hypernet.init((GROUP,), FRESH, jax.random.key(0))
    rates = {"lr": jnp.array([[0.01], [0.02]]), "lamda": jnp.array([[0.3], [-0.7]])}
    return net | rates


def assert_first_gradient(fresh, found, out_grad_snc, lr_grad):
    """The network's own part, with B = 0 (relu passes all): dL/dB = (z A)^T dL/dz', and A rests."""
    ((block, found_block),) = [(b, found["blocks"][place]) for place, b in fresh["blocks"].items()]
    z_snc = np.concatenate(network(None), axis=-1)
    inner_snr = z_snc @ np.asarray(block["A"], np.float64)
    assert_close(found["lr"][:, 0], lr_grad, rel=1e-4)
    assert_close(found_block["B"], np.einsum("snr,snc->rc", inner_snr, out_grad_snc), rel=1e-4)
    assert_close(found_block["bias"], out_grad_snc.sum((0, 1)), rel=1e-4)
    assert_close(found_block["shift"], out_grad_snc.sum(1), rel=1e-4)
    np.testing.assert_array_equal(found_block["A"], 0)


def test_a_learned_ridge_s_first_gradient_by_hand(fresh):
    found = pulled_back(LEARNED_RIDGE, fresh, FRESH)
    keys, grads = network(None)
    strength_sn1 = np.sum(KEYS * keys, axis=-1, keepdims=True)
    u_skv = np.linalg.solve(system(lambdas(fresh)), COTANGENT)
    y_grad_snv = np.einsum("snk,skv->snv", KEYS, u_skv)
    delta_skv = solution(-eta(fresh) * strength_sn1 * grads, lambdas(fresh))
    assert_close(found["lamda"][:, 0], -lambdas(fresh) * np.sum(u_skv * delta_skv, axis=(1, 2)), rel=1e-4)
    # y = -eta (k . k~) g~: to k~ and to g~, the two halves of the network's output
    key_grad = -eta(fresh) * KEYS * np.sum(y_grad_snv * grads, axis=-1, keepdims=True)
    out_grad_snc = np.concatenate([key_grad, -eta(fresh) * strength_sn1 * y_grad_snv], axis=-1)
    assert_first_gradient(fresh, found, out_grad_snc, np.sum(y_grad_snv * -strength_sn1 * grads, axis=(1, 2)))


def test_a_product_s_first_gradient_by_hand(fresh):
    """M being the cotangent, sum(M * D) with D = -eta sum_n k~ g~^T gives -eta g~ M^T to k~ and -eta k~ M to g~."""
    found = pulled_back(PSEUDO_PRODUCT, fresh, FRESH)
    keys, grads = (rows * USED[:, None] for rows in network(None))
    to_keys, to_grads = np.einsum("snv,skv->snk", grads, COTANGENT), np.einsum("snk,skv->snv", keys, COTANGENT)
    out_grad_snc = -eta(fresh) * np.concatenate([to_keys, to_grads], axis=-1)
    assert_first_gradient(fresh, found, out_grad_snc, -np.sum(to_grads * grads, axis=(1, 2)))
    np.testing.assert_array_equal(found["lamda"], 0)
