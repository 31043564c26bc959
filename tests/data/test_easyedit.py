import json

import pytest

from emsedit_jax.data.cues import Asked, Cue, EditRecord, Role
from emsedit_jax.data.records import load
from tests.data.rows import changed, refused_field
from tests.refusals import refused

REQUEST = {  # as EasyEdit's editor makes it
    "prompt": "Ray Charles, the",
    "target_new": " violin",
    "ground_truth": "piano",
    "subject": "Ray Charles",
    "rephrase_prompt": "Ray Charles plays the",
    "locality": {
        "neighborhood": {"prompt": "Joseph Fischhof, the", "ground_truth": "piano"},
        "distracting": {"prompt": ["Larry Bird is a", "In Forssa"], "ground_truth": ["player", "Finnish"]},
    },
    "portability": {"one_hop": {"prompt": "The bow of Ray Charles is of", "ground_truth": "horsehair"}},
}
KNOWEDIT = {
    "subject": "Leo Arons",
    "prompt": "The place of death of Leo Arons is",
    "target_new": "Berlin",
    "cond": "Bonn >> Berlin || where?",
    "portability": {
        "Logical Generalization": [{"prompt": "Is he alive?", "ground_truth": [["no"], ["is dead", ""]]}],
        "Reasoning": [{"prompt": "Its mayor is", "ground_truth": "Kai Wegner"}, {"prompt": "", "ground_truth": "x"}],
        "Subject_Aliasing": None,
    },
    "locality": {"Relation_Specificity": [{"prompt": "His father is", "ground_truth": [["Albert", "A. Arons"]]}]},
}


def one(write, row, role: Role = "eval"):
    (found,) = load("easyedit", write([row]), role=role)
    return found


def test_all_of_a_request_is_taken_to_evaluate_with(write):
    assert one(write, REQUEST) == EditRecord(
        edit=Cue("Ray Charles, the", "violin"),
        equiv=(Cue("Ray Charles plays the", "violin"),),
        unrel=(Cue("Joseph Fischhof, the", "piano"), Cue("Larry Bird is a", "player"), Cue("In Forssa", "Finnish")),
        subject="Ray Charles",
        source="facts.json row 0",
        asked=(Asked("one_hop", "The bow of Ray Charles is of", ("horsehair",)),),
    )


def test_the_first_of_each_is_taken_to_train_on(write):
    row = REQUEST | {"rephrase_prompt": ["", "Charles plays the", "he plays the"]}
    found = one(write, row, "train")
    assert found.equiv == (Cue("Charles plays the", "violin"),)
    assert found.unrel == (Cue("Joseph Fischhof, the", "piano"),)
    assert found.asked == ()


def test_knowedit_has_lists_and_several_answers(write):
    found = one(write, KNOWEDIT)
    assert found.unrel == (Cue("His father is", "Albert"),)
    assert found.asked == (
        Asked("Logical_Generalization", "Is he alive?", ("no", "is dead")),  # no spaces in the names of scores
        Asked("Reasoning", "Its mayor is", ("Kai Wegner",)),
    )


def test_knowedits_other_names_are_read(write):
    row = {"text": "John Reynolds was", "labels": "a doctor", "concept": "john reynolds", "locality": {}}
    assert one(write, row) == EditRecord(
        Cue("John Reynolds was", "a doctor"), (), (), "john reynolds", "facts.json row 0"
    )


@pytest.mark.parametrize("name", ["rephrase_prompt", "rephrase_prompts"])
@pytest.mark.parametrize("several", [False, True])
def test_a_row_may_hold_its_unrelated_prompts_itself(write, name, several):
    row = {"case_id": 3, "prompt": "p", "target_new": "a", "locality_prompt": "q", "locality_ground_truth": "b"}
    if several:
        row |= {name: ["r", "s"], "locality_prompt": ["q", "t"], "locality_ground_truth": ["b", "c"]}
    found = one(write, row)
    assert found.unrel == (Cue("q", "b"), Cue("t", "c"))[: 1 + several]
    assert found.equiv == (Cue("r", "a"), Cue("s", "a"))[: 2 * several]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"subject": None, "rephrase_prompt": None, "locality": None, "portability": None, "locality_prompt": None},
        {"rephrase_prompt": "", "locality": {}, "portability": {"a": []}},
        {
            "locality": {
                "a": {"prompt": " ", "ground_truth": "x"},
                "b": {"prompt": "q", "ground_truth": [["", " "], []]},
            }
        },
    ],
)
def test_prompt_and_target_are_enough_and_blanks_are_none(write, more):
    assert one(write, {"prompt": "p", "target_new": "a"} | more) == EditRecord(
        Cue("p", "a"), (), (), "", "facts.json row 0"
    )


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("prompt", ..., "field 'prompt' is missing"),
        ("prompt", "", "field 'prompt' is empty"),
        ("target_new", ["a"], "field 'target_new' is a list, not text"),
        ("target_new", ..., "field 'target_new' is missing"),
        ("subject", 3, "field 'subject' is a number, not text"),
        ("target_nwe", "a", "field 'target_nwe' is not known (Did you mean 'target_new'"),
        ("portabilty", {}, "field 'portabilty' is not known (Did you mean 'portability'"),
        ("rephrase_prompt", ["q", 3], "field 'rephrase_prompt[1]' is a number, not text"),
        ("rephrase_prompt", [["q"]], "field 'rephrase_prompt[0]' is a list, not text"),
        ("locality_inputs", {}, "'locality_inputs' is an argument of EasyEdit's editor; a request has 'locality'"),
        ("locality", [], "field 'locality' is a list, not an object with a name for each sort of prompts"),
        ("locality", {"?": {}}, "field 'locality' holds a sort without a name"),
        ("locality.neighborhood", "q", "locality.neighborhood is text, not an object"),
        ("locality.neighborhood", {"promt": "q"}, "'locality.neighborhood.prompt' is missing (Did you mean 'promt'?)"),
        ("locality.neighborhood.prompt", 3, "field 'locality.neighborhood.prompt' is a number, not text"),
        ("locality.neighborhood.ground_truth", ["a", 3], "'locality.neighborhood.ground_truth[1]' is a number, not"),
        ("locality.neighborhood.ground_truth", [[["a"]]], "'locality.neighborhood.ground_truth[0][0]' is a list, not"),
        (
            "locality.distracting.ground_truth",
            ["a"],
            "'locality.distracting.ground_truth' holds 1, 'locality.distracting.prompt' holds 2: each needs an answer",
        ),
        ("locality.distracting.ground_truth", "a", "'locality.distracting.ground_truth' is text, 'locality.distract"),
        ("portability.one_hop", [{"prompt": "q"}], "field 'portability.one_hop[0].ground_truth' is missing"),
        ("locality_prompt", "q", "field 'locality_ground_truth' is missing"),
    ],
)
def test_a_bad_field_is_named_with_file_and_row(write, path, value, says):
    refused_field(write, "easyedit", REQUEST, path, value, says)


# ---------------------------------------------------------------------------------------------- parallel lists

CALL = {  # the arguments of EasyEdit's editor, with two of its other settings
    "prompts": ["Ray Charles, the", "Grant Hill is a"],
    "target_new": ["violin", "bishop"],
    "ground_truth": None,
    "subject": ["Ray Charles", "Grant Hill"],
    "rephrase_prompts": ["Ray Charles plays the", ["Hill is a", "Grant Hill works as a"]],
    "locality_inputs": {
        "neighborhood": {"prompt": ["Joseph Fischhof, the", None], "ground_truth": ["piano", None]},
        "distracting": {"prompt": [["a", "b"], "c"], "ground_truth": [["x", "y"], "z"]},
    },
    "portability_inputs": {"one_hop": {"prompt": ["q", "r"], "ground_truth": ["s", ["t", "u"]]}},
    "keep_original_weight": True,
}


def test_parallel_lists_are_a_request_for_each_prompt(write):
    one, other = load("easyedit", write(CALL), role="eval")
    assert one == EditRecord(
        Cue("Ray Charles, the", "violin"),
        (Cue("Ray Charles plays the", "violin"),),
        (Cue("Joseph Fischhof, the", "piano"), Cue("a", "x"), Cue("b", "y")),
        "Ray Charles",
        "facts.json row 0",
        (Asked("one_hop", "q", ("s",)),),
    )
    assert other == EditRecord(
        Cue("Grant Hill is a", "bishop"),
        (Cue("Hill is a", "bishop"), Cue("Grant Hill works as a", "bishop")),
        (Cue("c", "z"),),
        "Grant Hill",
        "facts.json row 1",
        (Asked("one_hop", "r", ("t", "u")),),
    )
    assert load("easyedit", write(CALL), role="eval", rows=(1, None)) == [other]


def test_texts_are_the_arguments_of_a_single_edit(write):
    call = {"prompts": "p", "target_new": "a", "rephrase_prompts": "r"}
    inputs = {"n": {"prompt": "q", "ground_truth": "b"}}
    (found,) = load("easyedit", write(call | {"locality_inputs": inputs}), role="eval")
    assert (found.edit, found.equiv, found.unrel) == (Cue("p", "a"), (Cue("r", "a"),), (Cue("q", "b"),))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("prompts", ..., "field 'prompts' is missing"),
        ("prompts", 3, "field 'prompts' is a number, not a list"),
        ("target_new", ["a"], "field 'target_new' holds 1, 'prompts' holds 2"),
        ("rephrase_prompts", "a", "field 'rephrase_prompts' holds 1, 'prompts' holds 2"),
        ("subjects", ["a", "b"], "field 'subjects' is not known (Did you mean 'subject'"),
        ("locality_inputs", [], "field 'locality_inputs' is a list, not an object"),
        (
            "locality_inputs.distracting.prompt",
            ["a"],
            "'locality_inputs.distracting.prompt' holds 1, 'prompts' holds 2",
        ),
        ("portability_inputs.one_hop.ground_truth", ..., "'portability_inputs.one_hop.ground_truth' is missing"),
    ],
)
def test_lists_that_do_not_fit_are_told(write, path, value, says):
    file = write(changed(CALL, path, value))
    with refused(f"{file}: ", says, "Correct the file"):
        load("easyedit", file, role="eval")


def test_a_bad_request_of_parallel_lists_is_told_by_its_place(write):
    file = write(changed(CALL, "target_new", ["violin", None]))
    with refused(f"{file}: 1 bad row (counting from 0): row 1: field 'target_new' is null, not text"):
        load("easyedit", file, role="eval")


def test_neither_a_list_nor_an_object_is_refused(write):
    with refused("it holds text, not a list of rows"):
        load("easyedit", write(json.dumps("prompt")), role="eval")
    with refused("jq -s"):
        load("easyedit", write('{"prompt": "p"}\n{"prompt": "q"}\n'), role="eval")
