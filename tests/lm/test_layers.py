import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.lm import layers
from emsedit_jax.lm.config import inverse_frequencies
from emsedit_jax.lm.layers import Tap, causal_mask
from emsedit_jax.lm.layout import captured_of
from tests.tiny_lm import CONFIG

attend = jax.jit(layers.attend, static_argnums=0)
norm = jax.jit(layers.norm, static_argnums=0)
rope_tables = jax.jit(layers.rope_tables, static_argnums=(0, 2))
rotate = jax.jit(layers.rotate, static_argnums=2)
EXACT = dataclasses.replace(CONFIG, norm_eps=0.0)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# ---- the linear map and what is done to it ----


@jax.jit
def linear(weights, x, tap, captured):
    (y,), keys_nk = layers.linear(weights, (x,), tap, captured)
    return y, keys_nk


def test_linear_without_a_tap():
    weights, x_btk = {"w": draw(3, 5), "b": draw(5, seed=1)}, draw(2, 4, 3, seed=2)
    y_btv, keys = linear(weights, x_btk, None, None)
    np.testing.assert_allclose(y_btv, np.asarray(x_btk) @ weights["w"] + weights["b"], atol=1e-6)
    assert keys is None


def test_a_delta_is_added_to_the_weight():
    weights, x_btk, delta_kv = {"w": draw(3, 5)}, draw(2, 4, 3, seed=2), draw(3, 5, seed=3)
    y_btv, keys = linear(weights, x_btk, Tap(delta_kv, None), None)
    np.testing.assert_allclose(y_btv, np.asarray(x_btk) @ (weights["w"] + delta_kv), atol=1e-5)
    assert keys is None


def test_a_probe_is_added_and_keys_are_taken_at_the_captured_rows_alone():
    weights, x_btk, probe_nv = {"w": draw(3, 5)}, draw(2, 4, 3, seed=2), draw(3, 5, seed=3)
    capture_at_n = jnp.array([6, 1, 8])  # 8 = b * t: unused
    plain_btv, _ = linear(weights, x_btk, None, None)
    y_btv, keys_nk = linear(weights, x_btk, Tap(None, probe_nv), captured_of(capture_at_n, 8))
    expected = np.array(plain_btv).reshape(8, 5)
    expected[[6, 1]] += probe_nv[:2]
    np.testing.assert_allclose(np.reshape(y_btv, (8, 5)), expected, atol=1e-6)
    np.testing.assert_array_equal(keys_nk, np.stack([x_btk[1, 2], x_btk[0, 1], np.zeros(3)]))


@pytest.mark.parametrize("sizes", [(5,), (5, 3), (4, 1, 6)])
def test_parts_are_multiplied_together_and_only_the_last_is_pulled_back(sizes):
    w_kv, parts = draw(3, 5), tuple(draw(size, 3, seed=size) for size in sizes)

    def each(parts, w_kv):
        *fixed, last = (x @ w_kv for x in parts)
        return (*map(jax.lax.stop_gradient, fixed), last)

    found, pull = jax.vjp(layers.product, parts, w_kv)
    wanted, pull_each = jax.vjp(each, parts, w_kv)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), found, wanted)
    back, back_each = (one(tuple(jnp.cos(y) for y in wanted)) for one in (pull, pull_each))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), back, back_each)


def test_a_float32_delta_of_a_bf16_weight_is_not_rounded_away():
    w_kv = jnp.array([[256.0], [-256.0]], jnp.bfloat16)  # neighbours are 2 apart
    delta_kv = jnp.array([[0.25], [0.5]], jnp.float32)
    assert jnp.array_equal((w_kv + delta_kv).astype(jnp.bfloat16), w_kv)
    y_btv, _ = linear({"w": w_kv}, jnp.ones((1, 1, 2), jnp.bfloat16), Tap(delta_kv, None), None)
    assert y_btv.dtype == jnp.bfloat16
    assert float(y_btv[0, 0, 0]) == 0.75


# ---- norm ----


def test_rms_norm():
    y = norm(EXACT, {"w": jnp.array([1.0, 10.0])}, jnp.array([[3.0, 4.0]]))
    np.testing.assert_allclose(y, [[3 / np.sqrt(12.5), 40 / np.sqrt(12.5)]], rtol=1e-6)
    assert np.asarray(norm(CONFIG, {"w": jnp.ones(2)}, jnp.zeros((1, 2)))).tolist() == [[0, 0]]


def test_rms_norm_squares_in_float32():
    x = jnp.concatenate([jnp.full(1, 16.0, jnp.bfloat16), jnp.ones(256, jnp.bfloat16)])[None]
    y = norm(EXACT, {"w": jnp.ones(257, jnp.bfloat16)}, x)
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 0]) == pytest.approx(16 / np.sqrt(512 / 257), rel=2**-8)  # in bf16, 256 + 1 + 1 + ... stays 256


# ---- rope ----


def test_rope_turns_a_feature_with_the_one_half_a_head_away():
    config = dataclasses.replace(CONFIG, e=4, rope_theta=100.0)  # angles per position: 1 and 0.1
    x = jnp.zeros((1, 1, 1, 4)).at[..., 0].set(1.0).at[..., 3].set(1.0)
    turned = rotate(x, rope_tables(config, jnp.array([[3]])))
    np.testing.assert_allclose(turned[0, 0, 0], [np.cos(3), -np.sin(0.3), np.sin(3), np.cos(0.3)], atol=1e-6)


def test_rope_leaves_position_zero_and_every_length_as_they_are():
    x = draw(2, 5, 3, CONFIG.e)
    turned = rotate(x, rope_tables(CONFIG, jnp.broadcast_to(jnp.arange(5), (2, 5))))
    np.testing.assert_allclose(turned[:, 0], x[:, 0], atol=1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)
    assert np.abs(turned[:, 1:] - x[:, 1:]).max() > 0.5


def test_rope_makes_products_depend_on_distance_alone():
    q, k = draw(1, 1, 1, CONFIG.e), draw(1, 1, 1, CONFIG.e, seed=1)

    def product(at_q, at_k):
        turned = [rotate(x, rope_tables(CONFIG, jnp.array([[at]]))) for x, at in ((q, at_q), (k, at_k))]
        return float(jnp.sum(turned[0] * turned[1]))

    assert product(9, 4) == pytest.approx(product(5, 0), abs=1e-5)
    assert product(9, 4) != pytest.approx(product(9, 0), abs=1e-2)


def test_rope_tables_follow_the_config_s_frequencies():
    cos, sin = rope_tables(CONFIG, jnp.array([[0, 7]]))
    angles = np.array([0, 7])[:, None] * np.array(inverse_frequencies(CONFIG))
    np.testing.assert_allclose(cos[0], np.cos(angles), atol=1e-6)
    np.testing.assert_allclose(sin[0], np.sin(angles), atol=1e-6)


# ---- attention ----


def test_each_position_sees_its_own_segment_up_to_itself():
    mask = causal_mask(jnp.array([[1, 1, 2, 2, 0]]))[0].astype(int).tolist()
    assert mask == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]


def test_attention_over_equal_keys_is_the_mean_of_what_is_seen():
    q, v = draw(1, 3, 2, 4), draw(1, 3, 1, 4, seed=1)
    out = attend(CONFIG, q, jnp.ones((1, 3, 1, 4)), v, causal_mask(jnp.ones((1, 3), jnp.int32)))
    means = jnp.cumsum(v[0, :, 0], axis=0) / jnp.arange(1, 4)[:, None]
    np.testing.assert_allclose(out[0], np.tile(means, (1, 2)), atol=1e-6)


def test_query_heads_share_the_key_heads_in_order():
    q, k, v = draw(1, 3, 4, 6), draw(1, 3, 2, 6, seed=1), draw(1, 3, 2, 6, seed=2)
    mask = causal_mask(jnp.ones((1, 3), jnp.int32))
    grouped = attend(CONFIG, q, k, v, mask)
    apart = attend(CONFIG, q, jnp.repeat(k, 2, axis=2), jnp.repeat(v, 2, axis=2), mask)  # heads 0, 1 -> 0 and 2, 3 -> 1
    np.testing.assert_allclose(grouped, apart, atol=1e-6)
    scores = np.asarray(q[0, 1, 3]) @ np.asarray(k[0, :2, 1]).T / np.sqrt(6)
    shares = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(grouped[0, 1, 18:], shares @ np.asarray(v[0, :2, 1]), atol=1e-6)
