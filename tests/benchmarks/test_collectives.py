"""What devices send each other, read from the text of compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import collectives

HLO = """\
HloModule jit_f, num_partitions=8

%body (arg: (s32[], f32[1000,500])) -> (s32[], f32[1000,500]) {
  %all-reduce.1 = f32[1000,500]{1,0} all-reduce(%x), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%sum
}

ENTRY %main (p0: f32[1000,500]) -> f32[1000,500] {
  %while.3 = (s32[], f32[1000,500]) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %add = f32[1000,500]{1,0} add(%a, %b)
}
"""
NAMED = "replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}"
PART = "replica_groups=mesh['axis_0'=8] {'axis_0':(1)4}"
COUNTED = "replica_groups=[2,4]<=[8]"
FOUR = (NAMED, PART, COUNTED, "replica_groups={{0,1,2,3},{4,5,6,7}}")  # groups of four of eight devices


def body(*lines):
    return "\n".join(["HloModule jit_f, num_partitions=8", "", "ENTRY %main (p: f32[8]) -> f32[8] {", *lines, "}"])


def test_a_loops_collectives_are_counted_as_often_as_they_run():
    assert collectives.sent(HLO) == {"all-reduce": {"count": 5, "mb": 5 * 2.0}}


@pytest.mark.parametrize("groups", FOUR)
@pytest.mark.parametrize(
    ("kind", "result", "mb"),
    [
        ("all-reduce", "f32[1000,1000]{1,0}", 2 * 4 * 3 / 4),
        ("all-gather", "f32[1000,1000]{1,0:T(8,128)(2,1)}", 4 * 3 / 4),
        ("reduce-scatter", "f32[250,1000]{1,0}", 4 * 3 / 4),
        ("all-to-all", "(f32[500,1000]{1,0}, f32[500,1000]{1,0})", 4 * 3 / 4),
    ],
)
def test_the_same_array_counts_the_same_whatever_is_done_to_it(kind, result, mb, groups):
    assert collectives.sent(body(f"  %x = {result} {kind}(%p), {groups}")) == {kind: {"count": 1, "mb": mb}}


@pytest.mark.parametrize("groups", FOUR)
def test_what_is_started_is_counted_once_and_without_what_it_was_given(groups):
    text = body(
        f"  %start.1 = (f32[250,1000]{{1,0}}, f32[1000,1000]{{1,0}}) all-gather-start(%p), {groups}",
        "  ROOT %done.1 = f32[1000,1000]{1,0} all-gather-done(%start.1)",
        "  %start.2 = (bf16[1000]{0}, bf16[1000]{0}, u32[], u32[]) collective-permute-start(%p)",
        "  %done.2 = bf16[1000]{0} collective-permute-done((bf16[1000]{0}, bf16[1000]{0}, u32[], u32[]) %start.2)",
    )
    assert collectives.sent(text) == {
        "all-gather": {"count": 1, "mb": 3.0},
        "collective-permute": {"count": 1, "mb": 0.0},
    }


def test_every_branch_is_counted():
    text = HLO.replace("while(%t), condition=%c, body=%body", "conditional(%t), branch_computations={%body, %body}")
    assert collectives.sent(text) == {"all-reduce": {"count": 2, "mb": 2 * 2.0}}


def test_a_compiled_program_is_read():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8], dtype=object).reshape(2, 4), ("data", "model"))
    x, whole = (NamedSharding(mesh, spec) for spec in (P(None, "model"), P()))
    given = jax.ShapeDtypeStruct((500, 4000), jnp.float32, sharding=x)
    program = jax.jit(lambda x: x @ x.T, out_shardings=whole).lower(given).compile()
    assert collectives.sent(program.as_text() or "") == {"all-reduce": {"count": 1, "mb": 2 * 1.0 * 3 / 4}}
