"""Every recorded run is a parameter: `case` is any, `trained_case` one with a training, `recorded_model` a model.

Whole runs and the networks' gradients, which take longest, are made of a few alone unless long tests are asked for: of
every editor and of most families. The others are held to their recordings in all other stages.
"""

import pytest

from tests.parity import golden
from tests.quick_compiles import quick_compiles

__all__ = ["quick_compiles"]
IN_CI = frozenset(
    {
        "gemma2_ripple_seq_rledit_mended",
        "gpt2_fever_seq_mend",
        "gptj_counterfact_seq_malmen",
        "llama_zsre_batch_emsedit_mended",
        "llama_zsre_seq_emsedit",
        "llama_zsre_seq_ultraedit_iters2",
        "mistral_zsre_seq_ultraedit",
        "qwen2_counterfact_seq_emsedit",
    }
)


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", _params(metafunc, golden.case_names()), indirect=True)
    if "trained_case" in metafunc.fixturenames:
        trained = [name for name in golden.case_names() if golden.is_trained(name)]
        metafunc.parametrize("trained_case", _params(metafunc, trained), indirect=True)
    if "recorded_model" in metafunc.fixturenames:
        metafunc.parametrize("recorded_model", golden.model_names())


def _params(metafunc, names):
    if metafunc.module.__name__.rsplit(".", 1)[-1] not in ("test_end_to_end", "test_meta_gradient"):
        return names
    return [name if name in IN_CI else pytest.param(name, marks=pytest.mark.long) for name in names]


@pytest.fixture
def case(request) -> golden.Case:
    return golden.load(request.param)


@pytest.fixture
def trained_case(request) -> golden.Case:
    return golden.load(request.param)
