"""The ridge solution and its gradient against float64, what it costs, and what is said where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.edit import solve

S = 2
LAMBDA = np.array([0.5, 2.0], np.float32)
solved = jax.jit(solve.ridge)


def ridge(x_snk, y_snv, lambda_s):
    """The solution alone."""
    return solved(x_snk, y_snv, lambda_s).delta_skv


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def problem(n, k, v):
    return draw(S, n, k), draw(S, n, v, seed=1), LAMBDA


def expected(x_snk, y_snv, lambda_s):
    """The normal equations in float64."""
    x_snk, y_snv, lambda_s = (np.asarray(a, np.float64) for a in (x_snk, y_snv, lambda_s))
    gram_skk = np.einsum("snk,snj->skj", x_snk, x_snk) + lambda_s[:, None, None] * np.eye(x_snk.shape[-1])
    return np.linalg.solve(gram_skk, np.einsum("snk,snv->skv", x_snk, y_snv))


# ---- the solution ----


@pytest.mark.parametrize(("n", "k", "v"), [(5, 12, 7), (12, 12, 3), (30, 12, 7), (1, 4, 2)])
def test_both_forms_are_the_ridge_solution(n, k, v):
    x_snk, y_snv, lambda_s = problem(n, k, v)
    solution = expected(x_snk, y_snv, lambda_s)
    for form in (solve.dual, solve.primal, solve.ridge):
        delta_skv, error_s, *_ = jax.jit(form)(x_snk, y_snv, lambda_s)
        np.testing.assert_allclose(delta_skv, solution, rtol=1e-3, atol=2e-5)
        assert np.asarray(error_s).max() < 1e-4


def test_one_row_by_hand():
    x_snk, y_snv = np.array([[[3.0, 4.0]]], np.float32), np.array([[[1.0, -2.0]]], np.float32)
    delta_skv = ridge(x_snk, y_snv, np.array([5.0], np.float32))
    np.testing.assert_allclose(delta_skv[0], np.array([[3], [4]]) * np.array([[1, -2]]) / (25 + 5), rtol=1e-6)


def test_a_small_lambda_writes_and_a_large_one_does_not():
    x_snk, y_snv, _ = problem(5, 12, 7)
    written = np.einsum("snk,skv->snv", x_snk, ridge(x_snk, y_snv, np.full(S, 1e-4, np.float32)))
    np.testing.assert_allclose(written, y_snv, atol=1e-2)
    assert np.abs(ridge(x_snk, y_snv, np.full(S, 1e6, np.float32))).max() < 1e-4


@pytest.mark.parametrize("n", [5, 20])
def test_rows_of_zeros_change_nothing(n):
    x_snk, y_snv, lambda_s = problem(n, 12, 7)
    more_x_snk, more_y_snv = (np.pad(rows, [(0, 0), (0, 6), (0, 0)]) for rows in (x_snk, y_snv))
    np.testing.assert_allclose(
        ridge(more_x_snk, more_y_snv, lambda_s), ridge(x_snk, y_snv, lambda_s), rtol=1e-4, atol=1e-6
    )


def test_a_system_above_the_doubling_size():
    n = solve.SMALL + 20
    x_snk, y_snv = draw(1, n, n + 30), draw(1, n, 3, seed=1)
    lambda_s = np.array([3.0], np.float32)
    np.testing.assert_allclose(ridge(x_snk, y_snv, lambda_s), expected(x_snk, y_snv, lambda_s), rtol=1e-2, atol=1e-4)


# ---- whether it solves ----


def singular(n, k, site=1):
    """At one site no row is new to the others, the differences of equal rows differ, and nothing is added."""
    x_snk, y_snv, lambda_s = problem(n, k, 7)
    x_snk[site, n // 2 :] = x_snk[site, : n - n // 2]
    if n > k:  # the keys themselves then span too little
        x_snk[site, :, -1] = x_snk[site, :, 0]
    lambda_s = lambda_s.copy()
    lambda_s[site] = 0
    return x_snk, y_snv, lambda_s


@pytest.mark.parametrize("n", [6, 11])
def test_equal_rows_without_a_ridge_have_no_solution_and_their_site_is_nan(n):
    x_snk, y_snv, lambda_s = singular(n, 12)
    delta_skv, error_s, *_ = map(np.asarray, solved(x_snk, y_snv, lambda_s))
    assert not error_s[1] <= solve.WORST_ERROR  # above it, or not a number
    assert np.isnan(delta_skv[1]).all()
    assert error_s[0] < 1e-4
    np.testing.assert_allclose(delta_skv[0], expected(x_snk, y_snv, LAMBDA)[0], rtol=1e-3, atol=2e-5)
    with_ridge = solved(x_snk, y_snv, LAMBDA)
    assert np.asarray(with_ridge.error_s).max() < 1e-4
    np.testing.assert_allclose(with_ridge.delta_skv, expected(x_snk, y_snv, LAMBDA), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("form", [solve.dual, solve.primal])
def test_nothing_to_write_is_a_solution_of_zeros(form):
    x_snk, y_snv, lambda_s = problem(5, 12, 7)
    delta_skv, error_s, *_ = jax.jit(form)(x_snk, 0 * y_snv, lambda_s)
    np.testing.assert_array_equal(delta_skv, 0)
    np.testing.assert_array_equal(error_s, 0)


@pytest.mark.parametrize("error", [0.004, 0.02])
def test_the_error_is_what_one_more_solve_corrects(error, monkeypatch):
    """A factor whose solution is off by a known share, as rounding might leave it."""
    half = np.eye(3, dtype=np.float32)[None] / 2
    monkeypatch.setattr(solve, "_inverse_factor", lambda _: half * np.sqrt(1 + error))
    x_smv, error_s, *_ = solve.solve(*map(jnp.asarray, (16 * half * half, draw(1, 3, 2), np.zeros(1, np.float32))))
    assert float(error_s[0]) == pytest.approx(error, rel=1e-3)
    if error > solve.WORST_ERROR:
        assert np.isnan(x_smv).all()
    else:
        np.testing.assert_allclose(x_smv, draw(1, 3, 2) / 4 * (1 - error**2), rtol=1e-5)  # and it is corrected


@pytest.mark.parametrize("longest", [1e1, 1e2, 1e3, 1e4])
def test_one_row_far_longer_than_the_others_gives_right_numbers_or_none(longest):
    """The largest keys then drown what float32 keeps of the others, while the system looks solved."""
    x_snk, y_snv = draw(1, 40, 20), draw(1, 40, 3)
    x_snk[:, 0] *= longest
    one_s = np.ones(1, np.float32)
    delta_skv, error_s, *_ = map(np.asarray, solved(x_snk, y_snv, one_s))
    right_skv = expected(x_snk, y_snv, one_s)
    off = np.linalg.norm(delta_skv - right_skv) / np.linalg.norm(right_skv)
    assert np.isnan(delta_skv).all() if not error_s[0] <= solve.WORST_ERROR else off < 1e-2
    assert longest > 1e2 or off < 1e-3  # it is not refused for nothing


# ---- its cost ----


def shapes_in(jaxpr) -> set[tuple[int, ...]]:
    """Shapes of every value computed, in inner programs too."""
    shapes = set()
    for equation in jaxpr.eqns:
        shapes |= {tuple(variable.aval.shape) for variable in equation.outvars}
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                shapes |= shapes_in(inner)
    return shapes


def squares(n, k, of) -> set[int]:
    """Widths of the square matrices that `of(ridge)` computes on its way."""
    x_snk, y_snv, lambda_s = problem(n, k, 3)
    shapes = shapes_in(jax.make_jaxpr(of(solve.ridge))(x_snk, y_snv, lambda_s).jaxpr)
    assert (S, k, 3) in shapes or (S, n, 3) in shapes
    return {shape[-1] for shape in shapes if len(shape) >= 2 and shape[-1] == shape[-2] > 1}


def backward(function):
    return jax.grad(lambda *args: jnp.sum(function(*args).delta_skv), argnums=(1, 2))


@pytest.mark.parametrize("of", [lambda function: function, backward], ids=["forward", "backward"])
def test_the_system_is_of_the_smaller_side(of):
    assert squares(5, 37, of) == {5}
    assert squares(41, 37, of) == {37}
    assert squares(37, 37, of) == {37}


def test_which_form_is_chosen():
    assert [solve.chooses_dual(n, 8) for n in (7, 8, 9)] == [True, False, False]


# ---- the inverse ----


def lower_triangular(m):
    """A well-conditioned Cholesky factor of each of two sites."""
    rows = draw(S, m, m, seed=m) / np.sqrt(m)
    return np.linalg.cholesky(np.einsum("sij,skj->sik", rows, rows) + np.eye(m)).astype(np.float32)


@pytest.mark.parametrize("m", [1, 2, 3, 5, 31, 64, 200])
def test_inverse_by_doubling(m):
    factor_smm = lower_triangular(m)
    inverse_smm = jax.jit(solve._inverse_by_doubling)(factor_smm)
    np.testing.assert_allclose(inverse_smm, np.linalg.inv(factor_smm.astype(np.float64)), atol=1e-5)
    np.testing.assert_array_equal(np.triu(inverse_smm, 1), 0)


@pytest.mark.parametrize("m", [4, 16])
def test_the_triangular_solve_agrees_with_doubling(m, monkeypatch):
    factor_smm = lower_triangular(m)
    system_smm = np.einsum("sij,skj->sik", factor_smm, factor_smm)
    small = solve._inverse_factor(jnp.asarray(system_smm))
    monkeypatch.setattr(solve, "SMALL", 3)
    np.testing.assert_allclose(solve._inverse_factor(jnp.asarray(system_smm)), small, atol=1e-5)


# ---- its gradient ----


@pytest.mark.parametrize(("n", "k"), [(5, 12), (20, 12)])
def test_the_gradient_is_the_closed_formula(n, k):
    """U = (X^T X + lambda I)^-1 G; dL/dY = X U; dL/dlambda = -sum(U * Delta)."""
    x_snk, y_snv, lambda_s = problem(n, k, 7)
    g_skv = draw(S, k, 7, seed=2)
    gram_skk = np.einsum("snk,snj->skj", x_snk, x_snk).astype(np.float64) + LAMBDA[:, None, None] * np.eye(k)
    u_skv = np.linalg.solve(gram_skk, g_skv)

    def pull(x_snk, y_snv, lambda_s, g_skv):
        return jax.vjp(lambda y_snv, lambda_s: solve.ridge(x_snk, y_snv, lambda_s).delta_skv, y_snv, lambda_s)[1](g_skv)

    y_grad, lambda_grad = jax.jit(pull)(x_snk, y_snv, lambda_s, g_skv)
    np.testing.assert_allclose(y_grad, np.einsum("snk,skv->snv", x_snk, u_skv), rtol=1e-3, atol=2e-5)
    found = -np.sum(u_skv * expected(x_snk, y_snv, lambda_s), axis=(1, 2))
    np.testing.assert_allclose(lambda_grad, found, rtol=1e-3, atol=1e-5)
