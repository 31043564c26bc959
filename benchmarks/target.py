"""What programs are compiled for without having it: GPUs by their description, TPUs by their topology, else CPUs."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from emsedit_jax.errors import InputError, near

Compiler = Literal["cuda", "tpu", "cpu"]
INSTALL = "pip install -e '.[plan]'"
MODULES: dict[Compiler, str] = {"cuda": "jax_plugins.xla_cuda12", "tpu": "libtpu"}  # what each compiler comes in


class Device(NamedTuple):
    """An accelerator to plan for."""

    memory_gb: int
    name: str  # in `benchmarks/peaks.py`
    compiler: Compiler
    axes: int = 0  # of a TPU's torus
    gpu: str = ""  # what XLA is to know of a GPU, beside what all of them have in common


DEVICES = {
    "h100": Device(
        80,
        "NVIDIA H100",
        "cuda",
        gpu="""shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
        memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84929347584
        shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 }""",
    ),
    "h200": Device(
        141,
        "NVIDIA H200",
        "cuda",
        gpu="""shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
        memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 151397597184
        shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 }""",
    ),
    "a100": Device(
        80,
        "NVIDIA A100",
        "cuda",
        gpu="""shared_memory_per_core: 167936 threads_per_core_limit: 2048 core_count: 108 fpus_per_core: 64
        memory_bandwidth: 2039040000000 l2_cache_size: 41943040 clock_rate_ghz: 1.41 device_memory_size: 85100068864
        shared_memory_per_block_optin: 166912 cuda_compute_capability { major: 8 }""",
    ),
    "l40s": Device(
        48,
        "NVIDIA L40S",
        "cuda",
        gpu="""shared_memory_per_core: 102400 threads_per_core_limit: 1536 core_count: 142 fpus_per_core: 128
        memory_bandwidth: 864000000000 l2_cache_size: 100663296 clock_rate_ghz: 2.52 device_memory_size: 47810936832
        shared_memory_per_block_optin: 101376 cuda_compute_capability { major: 8 minor: 9 }""",
    ),
    "v5e": Device(16, "TPU v5 lite", "tpu", axes=2),
    "v5p": Device(95, "TPU v5p", "tpu", axes=3),
    "v6e": Device(32, "TPU v6 lite", "tpu", axes=2),
}
ALL_GPUS = """threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
registers_per_core_limit: 65536 registers_per_block_limit: 65536"""


class Target(NamedTuple):
    """So many devices of a kind, and the compiler that there is for them."""

    kind: str  # of `DEVICES`
    count: int
    compiler: Compiler

    @property
    def words(self) -> str:
        """What programs are compiled for."""
        return "virtual CPU devices, float32" if self.compiler == "cpu" else DEVICES[self.kind].name

    @property
    def shortened(self) -> float:
        """Bytes of a pass in a shorter format over those of what is compiled in its place."""
        return 0.5 if self.compiler == "cpu" else 1.0

    def devices(self) -> Sequence[Any]:
        """The devices, or their descriptions. Once JAX is prepared."""
        import jax
        from jax.experimental import topologies

        if self.compiler == "cpu":
            return jax.devices()
        if self.compiler == "tpu":
            torus = torus_of(self.count, DEVICES[self.kind].axes)
            name = f"{self.kind}:{'x'.join(map(str, torus))}"
            host = [*(min(2, length) for length in torus[:2]), 1]  # a host has 2 x 2 chips of a larger slice
            return topologies.get_topology_desc(platform="tpu", topology_name=name, chips_per_host_bounds=host).devices
        return topologies.get_topology_desc(
            platform="cuda", topology_name="", topology=f"1x1x{self.count}", target_config=_gpu(self.kind)
        ).devices


def chosen(kind: str, count: int, *, cpu: bool) -> Target:
    """What to compile for; `cpu`: virtual CPU devices all the same. Where these are all there is, stderr is told.

    Raises InputError for a kind that nothing is known of, and a number of devices that there is not.
    """
    if kind not in DEVICES:
        raise InputError(f"--device={kind}: known are {', '.join(DEVICES)}.{near(kind, DEVICES)}")
    if count < 1:
        raise InputError(f"--devices={count}: must be at least 1.")
    device = DEVICES[kind]
    if device.compiler == "tpu":
        torus_of(count, device.axes)
    if not cpu and has(MODULES[device.compiler]):
        return Target(kind, count, device.compiler)
    if not cpu:
        print(
            f"warning: no compiler for {kind} is installed ({INSTALL}): compiled for virtual CPU devices in float32, "
            "whose temporaries and collectives are not those of the device",
            file=sys.stderr,
        )
    return Target(kind, count, "cpu")


def prepare(target: Target) -> None:
    """Settles, before any device is looked at, what programs are compiled for."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if target.compiler == "cuda":
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    # the TPU's library asks the network what machine this is, says on stderr that it is none, and bars other processes
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5e-1"}
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", target.count if target.compiler == "cpu" else 1)
    jax.devices()  # which makes the plugins known


def torus_of(count: int, axes: int) -> tuple[int, ...]:
    """The chips along each axis of a slice: powers of two, as even as can be, the longest axis last.

    >>> torus_of(8, 2), torus_of(4, 3)
    ((2, 4), (2, 2, 1))

    Raises InputError for a number that is no power of two, or above 256: slices of so many chips are not told here.
    """
    if count & (count - 1) or count > 256:
        raise InputError(
            f"--devices={count}: a slice of TPUs has 1, 2, 4 and so on up to 256 chips; name one of these."
        )
    twos = count.bit_length() - 1
    if axes == 3 and twos <= 2:  # a host's chips lie in a plane
        return (*torus_of(count, 2), 1)
    return tuple(1 << (twos + place) // axes for place in range(axes))


def _gpu(kind: str) -> str:
    return f"""gpu_device_info {{ {ALL_GPUS} {DEVICES[kind].gpu} }} platform_name: "CUDA"
    dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 12 minor: 8 patch: 0 }}
    device_description_str: "{DEVICES[kind].name}" """


def has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
