"""Both shift rules, and the learned one's gradient, against the formulas written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.edit import hypernet, normalizer, shift
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.types import NormStats
from tests.tiny_lm import SITES

GROUP = SITES[0]
S, N, K, V = 2, 5, GROUP.k, GROUP.v
C = K + V
SPEC = NetSpec(rank=3, n_blocks=1, lr=0.01)
USED = np.arange(N) < N - 1  # the last row is unused
RNG = np.random.default_rng(0)
KEYS, GRADS = (RNG.normal(size=(S, N, width)) * USED[:, None] for width in (K, V))
MEAN, VAR, COUNT = RNG.normal(size=C), RNG.uniform(0.5, 2, size=C), 40
STATS = NormStats(jnp.int32(COUNT), jnp.asarray(MEAN, jnp.float32), jnp.asarray(VAR, jnp.float32))
LAMBDA_LOG = np.array([0.3, -0.7])
LR = np.array([0.01, 0.02])

learned = jax.jit(shift.learned_ridge, static_argnums=(0, 1))
normalised = jax.jit(shift.normalised_ridge, static_argnums=(0, 1))


def rows():
    return (jnp.asarray(KEYS, jnp.float32), jnp.asarray(GRADS, jnp.float32), jnp.asarray(USED))


def standardised():
    deviation = np.sqrt(VAR * COUNT / (COUNT - 1))
    return (np.concatenate([KEYS, GRADS], axis=-1) - MEAN) / (deviation + np.finfo(np.float32).eps)


def solved(y_snv, lambda_s):
    """(X^T X + lambda I)^-1 X^T Y"""
    return np.linalg.solve(system(lambda_s), np.einsum("snk,snv->skv", KEYS, y_snv))


def system(lambda_s):
    return np.einsum("snk,snj->skj", KEYS, KEYS) + lambda_s[:, None, None] * np.eye(K)


@pytest.fixture(scope="module")
def theta():
    """A fresh network (it gives back its input) with learning rates and ridge coefficients of each site's own."""
    (net,) = hypernet.init((GROUP,), SPEC, jax.random.key(0))
    return net | {"lr": jnp.asarray(LR[:, None], jnp.float32), "lamda": jnp.asarray(LAMBDA_LOG[:, None], jnp.float32)}


def differences():
    """Pseudo-keys, pseudo-gradients, strengths and value differences of a fresh network."""
    z_snc = standardised()
    strength_sn1 = np.sum(KEYS * z_snc[..., :K], axis=-1, keepdims=True)
    return z_snc, strength_sn1, -LR[:, None, None] * strength_sn1 * z_snc[..., K:]


def test_learned_ridge(theta):
    _, _, y_snv = differences()
    found = learned(GROUP, SPEC, theta, STATS, *rows())
    np.testing.assert_allclose(found, solved(y_snv, np.exp(LAMBDA_LOG)), rtol=1e-3, atol=1e-6)


def test_normalised_ridge():
    spec = SPEC._replace(lr=0.05)
    z_snc = standardised()
    y_snv = -0.05 * np.sum(z_snc[..., :K] ** 2, axis=-1, keepdims=True) * z_snc[..., K:] * USED[:, None]
    found = normalised(GROUP, spec, None, STATS, *rows())
    np.testing.assert_allclose(found, solved(y_snv, np.ones(S)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rule", [learned, normalised])
def test_unused_rows_change_nothing(rule, theta):
    given = theta if rule is learned else None
    keys, grads, used = rows()
    less = rule(GROUP, SPEC, given, STATS, keys[:, :-1], grads[:, :-1], used[:-1])
    np.testing.assert_allclose(rule(GROUP, SPEC, given, STATS, keys, grads, used), less, rtol=1e-4, atol=1e-7)


def test_a_fresh_network_s_normaliser_may_be_empty(theta):
    found = learned(GROUP, SPEC, theta, normalizer.init(C), *rows())
    strength_sn1 = np.sum(KEYS * KEYS, axis=-1, keepdims=True)
    expected = solved(-LR[:, None, None] * strength_sn1 * GRADS, np.exp(LAMBDA_LOG))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_the_gradient_in_closed_form(theta):
    """METHODS: U = (X^T X + lambda I)^-1 G, dL/dY = X U, dL/dl = -lambda sum(U * Delta); then the network's own."""
    g_skv = np.random.default_rng(7).normal(size=(S, K, V))

    def pull(theta, g_skv):
        return jax.vjp(lambda theta: shift.learned_ridge(GROUP, SPEC, theta, STATS, *rows()), theta)[1](g_skv)[0]

    found = jax.jit(pull)(theta, jnp.asarray(g_skv, jnp.float32))

    z_snc, strength_sn1, y_snv = differences()
    lambda_s = np.exp(LAMBDA_LOG)
    u_skv = np.linalg.solve(system(lambda_s), g_skv)
    y_grad_snv = np.einsum("snk,skv->snv", KEYS, u_skv)
    lamda_grad = -lambda_s * np.sum(u_skv * solved(y_snv, lambda_s), axis=(1, 2))
    np.testing.assert_allclose(found["lamda"][:, 0], lamda_grad, rtol=1e-3, atol=1e-6)
    lr_grad = np.sum(y_grad_snv * -strength_sn1 * z_snc[..., K:], axis=(1, 2))
    np.testing.assert_allclose(found["lr"][:, 0], lr_grad, rtol=1e-3, atol=1e-5)

    eta = LR[:, None, None]  # y = -eta (k . k~) g~: to k~ and to g~, the two halves of the network's output
    key_grad = -eta * KEYS * np.sum(y_grad_snv * z_snc[..., K:], axis=-1, keepdims=True)
    out_grad_snc = np.concatenate([key_grad, -eta * strength_sn1 * y_grad_snv], axis=-1)
    ((block, found_block),) = [(b, found["blocks"][place]) for place, b in theta["blocks"].items()]
    inner_snr = z_snc @ np.asarray(block["A"], np.float64)
    tolerance = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(found_block["B"], np.einsum("snr,snc->rc", inner_snr, out_grad_snc), **tolerance)
    np.testing.assert_allclose(found_block["bias"], out_grad_snc.sum((0, 1)), **tolerance)
    np.testing.assert_allclose(found_block["shift"], out_grad_snc.sum(1), **tolerance)
    np.testing.assert_array_equal(found_block["A"], 0)
