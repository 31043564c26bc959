import dataclasses

import pytest

from emsedit_jax.edit.sites import expand, resolve, site_names
from tests.refusals import refused
from tests.tiny_lm import CONFIG

SQUARE = dataclasses.replace(CONFIG, f=CONFIG.d)  # gate, up and down then share a shape


def gate(layer):
    return f"model.layers.{layer}.mlp.gate_proj"


def names(patterns, config=CONFIG):
    return site_names(resolve(config, patterns))


# ---- patterns ----


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [
        ("a.b", ["a.b"]),
        ("a.{8..11}.b", ["a.8.b", "a.9.b", "a.10.b", "a.11.b"]),
        ("a.{3..3}", ["a.3"]),
        ("{x, y}.b", ["x.b", "y.b"]),
        ("{0..1}.{x,y}", ["0.x", "0.y", "1.x", "1.y"]),
    ],
)
def test_braces(pattern, expanded):
    assert expand(pattern) == expanded


@pytest.mark.parametrize("inside", ["5..2", "0..99999999"])
def test_an_empty_or_endless_range_is_refused(inside):
    with refused(f"a.{{{inside}}}.b", "range"):
        expand(f"a.{{{inside}}}.b")


def test_globs_go_through_the_layers_in_order():
    assert names(["*.gate_proj"]) == [gate(0), gate(1), gate(2)]
    assert names(["model.layers.?.self_attn.[qk]_proj"]) == [
        f"model.layers.{layer}.self_attn.{name}_proj" for name in "qk" for layer in range(3)
    ]  # q is wider than k, hence a group of its own


def test_names_are_whole_and_case_counts():
    with refused("'gate_proj'"):
        names(["gate_proj"])
    with refused("'*.GATE_PROJ'"):
        names(["*.GATE_PROJ"])


# ---- order and groups ----


def test_sites_keep_the_order_of_the_patterns():
    assert names([gate("{2,0}"), gate(1)]) == [gate(2), gate(0), gate(1)]
    (group,) = resolve(CONFIG, [gate("{2,0}")])
    assert (group.layers, group.modules, group.k, group.v) == ((2, 0), ("mlp.gate", "mlp.gate"), 8, 12)


def test_groups_are_shapes_in_order_of_first_appearance():
    down, up = "model.layers.0.mlp.down_proj", "model.layers.1.mlp.up_proj"
    first, second = resolve(CONFIG, [down, gate(1), "model.layers.2.mlp.down_proj", up])
    assert (first.shape_key, first.names) == ("12x8", (down, "model.layers.2.mlp.down_proj"))
    assert (second.shape_key, second.names) == ("8x12", (gate(1), up))
    assert second.modules == ("mlp.gate", "mlp.up")


def test_maps_of_one_shape_share_a_group_whatever_they_are():
    (group,) = resolve(SQUARE, ["model.layers.1.mlp.*"])
    assert group.modules == ("mlp.gate", "mlp.up", "mlp.down")
    assert group.layers == (1, 1, 1)


def test_sites_are_hashable_and_equal_when_alike():
    assert len({resolve(CONFIG, ["*.mlp.gate_proj"]), resolve(CONFIG, [gate("{0..2}")])}) == 1


# ---- refusals ----


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        ([gate(3)], (repr(gate(3)), "is no linear layer of this", "Did you mean", gate(2))),
        (["model.layers.0.mlp.gate"], ("'model.layers.0.mlp.gate'", repr(gate(0)))),
        ([gate("{1..4}")], (repr(gate(3)),)),
        (["transformer.h.*.mlp.c_proj"], ("'transformer.h.*.mlp.c_proj'", "llama", "model.layers.0.")),
        (["model.norm"], ("'model.norm'",)),
        (["lm_head"], ("'lm_head'",)),
        ([], ("no edit sites", "--config.model.edit_modules")),
        ([gate(1), gate("{0..1}")], (repr(gate(1)), "twice", "--config.model.edit_modules")),
        (["*.gate_proj", "*.mlp.gate_*"], (repr(gate(0)), "twice")),
    ],
)
def test_refusals_name_the_pattern(patterns, named):
    with refused(*named):
        resolve(CONFIG, patterns)
