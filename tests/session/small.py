"""A session on the tiny recorded Llama, in seconds."""

from typing import Any

from emsedit_jax.session.session import EditSession
from tests.run import tiny

SETTINGS = {
    "model.edit_modules": ("model.layers.{3..4}.mlp.gate_proj",),
    "editor.lr": 0.05,  # large enough that a random model's answers change
    "eval.max_new_tokens": 4,
    "compile_cache": False,  # where programs are kept is a setting of the whole process
    "dataset.n_edits": 4,
}
NETWORKS = {"editor.rank": 8, "editor.n_blocks": 1}
FACTS: list[dict[str, Any]] = [
    {
        "prompt": "Who wrote Hamlet?",
        "answer": "Jane Austen",
        "subject": "Hamlet",
        "paraphrases": ["Who is the author of Hamlet?", "Hamlet was written by"],
        "unrelated": [{"prompt": "Water boils at", "answer": "100 degrees"}],
    },
    {"prompt": "The Eiffel Tower is in", "answer": "Rome"},
    {"prompt": "The capital of France is", "answer": "Lyon"},
]


def session(editor: str = "ultraedit", **more) -> EditSession:
    networks = NETWORKS if editor != "ultraedit" else {}
    return EditSession.from_pretrained(tiny.MODEL, editor, settings=SETTINGS | networks | more)
