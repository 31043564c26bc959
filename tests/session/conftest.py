"""A desk with a tiny session behind it, and who asks it; the libraries of the page are loaded for its tests alone."""

import pytest

from tests.session.small import session


@pytest.fixture(scope="module")
def shared():
    return session()


@pytest.fixture
def desk(shared, tmp_path):
    """One that nothing was done at yet."""
    from emsedit_jax.session.serve_desk import Desk

    made = Desk(shared, tmp_path / "kept")
    yield made
    made.close()
    if shared.batches:
        shared.undo(*shared.batches)


@pytest.fixture
def known(desk):
    """A program that shows the token."""
    from tests.session import paging

    return paging.client(desk)


@pytest.fixture
def browser(desk):
    """A page that was opened with the token."""
    from tests.session import paging

    made = paging.client(desk, headers={"origin": paging.BASE})
    made.get(f"/?token={paging.TOKEN}")
    return made
