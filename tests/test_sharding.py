"""The mesh, and where arrays lie on it."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from emsedit_jax import sharding
from emsedit_jax.errors import InputError


@pytest.mark.parametrize(
    ("data", "model", "shape"), [(2, 4, (2, 4)), (-1, 2, (4, 2)), (2, -1, (2, 4)), (-1, 1, (8, 1)), (1, 3, (1, 3))]
)
def test_a_mesh_takes_the_rest_or_as_many_as_are_named(data, model, shape):
    mesh = sharding.make_mesh(data, model)
    assert mesh is not None
    assert mesh.devices.shape == shape


def test_one_device_needs_no_mesh():
    assert sharding.make_mesh(1, 1) is None
    assert sharding.make_mesh(-1, 1, jax.devices()[:1]) is None
    assert sharding.alone()


@pytest.mark.parametrize(
    ("data", "model", "words"),
    [(-1, -1, "only one of them"), (-1, 3, "cannot be divided by 3"), (4, 4, "16 devices are asked for")],
)
def test_a_mesh_that_cannot_be_is_refused(data, model, words):
    with pytest.raises(InputError, match=words):
        sharding.make_mesh(data, model)


@pytest.fixture
def mesh():
    with jax.set_mesh(sharding.make_mesh(2, 4)):
        yield


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((8, 4), P(("data", "model"), ("model",))),
        ((4, 4), P(("data",), ("model",))),  # 8 devices do not divide 4 rows, 2 do
        ((3, 6), P(None, None)),
    ],
)
def test_axes_that_the_devices_do_not_divide_stay_whole(mesh, shape, spec):
    assert sharding.dividing(shape, (("data", "model"), "model")) == spec


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_sites_are_spread_whatever_their_number(mesh, count):
    given = np.arange(6.0 * count).reshape(count, 2, 3)
    seen = []

    def inverse(x_sab):
        seen.append(x_sab.shape)
        return {"doubled": 2 * x_sab, "sum": jnp.sum(x_sab, axis=(1, 2))}

    found = jax.jit(lambda x: sharding.over_sites(inverse, x))(given)
    np.testing.assert_array_equal(found["doubled"], 2 * given)
    np.testing.assert_array_equal(found["sum"], given.sum(axis=(1, 2)))
    assert seen[0][0] == -(-count // 2)


def test_the_mesh_is_carried_to_another_thread(mesh):
    def there():
        return sharding.size("data"), sharding.size("model")

    with ThreadPoolExecutor(1) as other:
        assert other.submit(there).result() == (1, 1)  # by itself it has none
    with ThreadPoolExecutor(1, initializer=sharding.carried()) as other:
        assert other.submit(there).result() == (2, 4)


@pytest.mark.parametrize(
    ("data", "model", "lanes"), [(8, 1, 1), (4, 2, 2), (2, 4, 4), (1, 8, 8), (4, 1, 2), (1, 3, 24)]
)
def test_all_devices_divide_the_rows_of_all_parts_together(data, model, lanes):
    with jax.set_mesh(sharding.make_mesh(data, model)):
        assert sharding.row_lanes() == lanes
    assert sharding.row_lanes() == 8


def test_a_pass_in_other_parts_than_the_mesh_is_refused(mesh):
    with pytest.raises(ValueError, match="3 parts"):
        sharding.over_data(lambda x: x, (), (jnp.ones(3),), sharding.ROWS, 3)
    with pytest.raises(ValueError, match="1 parts"):
        sharding.over_data(lambda x: x, (), (jnp.ones(3),), sharding.ROWS, 1)


def test_parts_are_seen_one_by_one_and_summed_when_asked(mesh):
    def both(scale, x_r):
        return scale * x_r, sharding.total(jnp.sum(x_r))

    out = (sharding.ROWS, sharding.WHOLE)
    rows, total = jax.jit(lambda x: sharding.over_data(both, (jnp.asarray(3.0),), (x,), out, 2))(np.arange(6.0))
    np.testing.assert_array_equal(rows, 3 * np.arange(6.0))
    assert total == 15


def test_what_waits_on_the_host_comes_back_where_it_was(mesh):
    x = sharding.put(np.arange(32.0).reshape(8, 4), P("data", None))
    apart = sharding.Apart(x)
    assert apart.nbytes == x.nbytes  # each piece once, though four devices hold it
    assert apart.together().sharding == x.sharding
    np.testing.assert_array_equal(sharding.host(apart.together()), sharding.host(x))


@pytest.mark.parametrize("most", [16, 200, 2**20])
@pytest.mark.parametrize("spec", [P(None, None, "model"), P("data", "model", None), P()])
def test_what_is_gathered_piece_by_piece_is_the_whole(mesh, spec, most):
    x = np.arange(6 * 4 * 8, dtype=np.float32).reshape(6, 4, 8)
    np.testing.assert_array_equal(sharding.gathered(sharding.put(x, spec), most), x)


def test_no_more_than_so_much_is_gathered_at_once(mesh, monkeypatch):
    seen, jit = [], jax.jit

    def watching(function, **how):
        compiled = jit(function, **how)
        return lambda *given: seen.append(found := compiled(*given)) or found

    monkeypatch.setattr(jax, "jit", watching)
    x = sharding.put(np.arange(7 * 4 * 8, dtype=np.float32).reshape(7, 4, 8), P(None, None, "model"))
    sharding.gathered(x, most=2 * 4 * 8 * 4)  # bytes of two of the seven
    assert [piece.shape[0] for piece in seen] == [2, 2, 2, 1]
    assert all(piece.is_fully_replicated for piece in seen)


def test_a_number_is_gathered(mesh):
    assert sharding.gathered(sharding.put(np.float32(3))) == 3
