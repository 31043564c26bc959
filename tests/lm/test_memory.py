"""What a model takes in host memory while it is loaded, counted by the kernel in a process of its own."""

import subprocess
import sys

import numpy as np
import pytest

from tests.lm import tiny_folder
from tests.lm.tiny_folder import write, write_tokenizer

D, F, LAYERS, VOCABULARY = 512, 4096, 4, 16_000
SMALL = {"norm": (D,), "q_proj": (D, D), "k_proj": (D, D), "v_proj": (D, D), "o_proj": (D, D)}
MEASURE = """
import sys, pathlib
from emsedit_jax.lm import model
def status(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))
model.load_lm(sys.argv[1])  # what any load takes: imports, the runtime's first buffers
before = status("VmRSS"), status("VmHWM")
lm = model.load_lm(sys.argv[2], sys.argv[3])
print(*before, status("VmHWM"))
"""


def large(dtype) -> dict[str, np.ndarray]:
    """A model with large maps and a larger embedding and head."""
    layer = {f"self_attn.{name}": SMALL[name] for name in SMALL if name != "norm"}
    layer |= {"mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}
    layer |= {"input_layernorm": (D,), "post_attention_layernorm": (D,)}
    shapes = {f"model.layers.{at}.{name}.weight": shape for at in range(LAYERS) for name, shape in layer.items()}
    shapes |= {"model.embed_tokens.weight": (VOCABULARY, D), "lm_head.weight": (VOCABULARY, D)}
    shapes |= {"model.norm.weight": (D,)}
    return {name: np.ones(shape, dtype) for name, shape in shapes.items()}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc, which Linux alone has")
@pytest.mark.parametrize(("stored", "loaded", "shards"), [("float32", "float32", 1), ("float16", "float32", 3)])
def test_loading_takes_less_than_the_model_and_one_tensor(tmp_path, stored, loaded, shards):
    write_tokenizer(write(tmp_path / "small", tiny_folder.tensors()))
    sizes = {"hidden_size": D, "intermediate_size": F, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64}
    weights = large(stored)
    write_tokenizer(write(tmp_path / "large", weights, shards, **sizes, **heads))
    width = np.dtype(loaded).itemsize
    whole, largest = sum(one.size * width for one in weights.values()), VOCABULARY * D * width
    script = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large"), loaded]
    said = subprocess.run(script, capture_output=True, text=True, timeout=300, check=True).stdout
    at_rest, peak_before, peak = map(int, said.split())
    assert peak_before < peak, "the load is not what took most memory"
    assert whole < peak - at_rest < whole + largest
