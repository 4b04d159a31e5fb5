"""What the processor can do at most: measured rates of large matrix products and convolutions, in both precisions.

    python -m benchmarks.machine {tensorflow,pytorch} [--threads N]     one line of JSON, in GFLOP/s

And what the network needs: FLOPs per image, from its shapes.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable

from job.limits import SIDE
from job.processor import description
from job.settings import Model

_SIZE = 4096
"""Side of the matrices: 3 x 64 MB in float32, far more than a step's overhead, a fraction of a second each."""
_CONV = (32, 56, 56, 128, 128, 3)
"""Batch, height, width, channels in and out, kernel: a shape that convolution libraries are built for."""
_SECONDS = 3.0
"""For each rate; the best of its repetitions counts."""


def flops_per_image(model: Model | None = None) -> dict[str, int]:
    """Floating-point operations (a multiply-add is two) of convolutions and dense layers for one image.

    "forward", and "training" for forward and backward: each layer's backward pass is two products of the size of its
    forward one, for the weights and for the input, but the first layer's input needs no gradient. Relu, pooling and
    biases (under 2%) are not counted.
    """
    shape = model or Model()
    side, channels, layers = SIDE, 3, []
    for filters in shape.filters:
        side = side - shape.kernel_size + 1
        layers.append(2 * side * side * filters * shape.kernel_size**2 * channels)
        side, channels = side // shape.pool_size, filters
    layers += [2 * side * side * channels * shape.dense, 2 * shape.dense]
    return {"forward": sum(layers), "training": 3 * sum(layers) - layers[0]}


def weights(model: Model | None = None) -> int:
    """How many weights the network has: as many floats as its gradients."""
    shape = model or Model()
    side, channels, count = SIDE, 3, 0
    for filters in shape.filters:
        count += (shape.kernel_size**2 * channels + 1) * filters
        side, channels = (side - shape.kernel_size + 1) // shape.pool_size, filters
    return count + (side * side * channels + 1) * shape.dense + shape.dense + 1


def processor() -> str:
    """The processor's name, as the system gives it."""
    found = description()
    if not found:
        return platform.processor() or platform.machine()
    flags = {"avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX"}
    has = [name for flag, name in flags.items() if flag in found.get("flags", "").split()]
    return f"{found.get('model name', platform.machine())}{' with ' + ', '.join(has) if has else ''}"


def _best(run: Callable[[], object], flops: float) -> float:
    """The best rate in GFLOP/s over some seconds."""
    run()
    run()
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return flops / best / 1e9


def _tensorflow(threads: int) -> dict[str, float]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    batch, height, width, channels, filters, kernel = _CONV
    rates = {}
    for name, dtype in (("float32", tf.float32), ("mixed_bfloat16", tf.bfloat16)):
        a = tf.cast(tf.random.normal((_SIZE, _SIZE)), dtype)
        x = tf.cast(tf.random.normal((batch, height, width, channels)), dtype)
        k = tf.cast(tf.random.normal((kernel, kernel, channels, filters)), dtype)
        product = tf.function(lambda a=a: tf.reduce_max(tf.matmul(a, a)))
        convolution = tf.function(lambda x=x, k=k: tf.reduce_max(tf.nn.conv2d(x, k, 1, "SAME")))
        rates[f"product {name}"] = _best(lambda f=product: f().numpy(), 2 * _SIZE**3)
        rates[f"convolution {name}"] = _best(lambda f=convolution: f().numpy(), _conv_flops())
    return rates


def _pytorch(threads: int) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)
    batch, height, width, channels, filters, kernel = _CONV
    rates = {}
    with torch.no_grad():
        for name, dtype in (("float32", torch.float32), ("mixed_bfloat16", torch.bfloat16)):
            a = torch.randn(_SIZE, _SIZE).to(dtype)
            last = torch.channels_last
            x = torch.randn(batch, channels, height, width).to(dtype).to(memory_format=last)
            k = torch.randn(filters, channels, kernel, kernel).to(dtype).to(memory_format=last)
            rates[f"product {name}"] = _best(lambda a=a: a @ a, 2 * _SIZE**3)
            rates[f"convolution {name}"] = _best(
                lambda x=x, k=k: torch.nn.functional.conv2d(x, k, padding=kernel // 2), _conv_flops()
            )
    return rates


def _conv_flops() -> float:
    batch, height, width, channels, filters, kernel = _CONV
    return 2.0 * batch * height * width * channels * filters * kernel**2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=("tensorflow", "pytorch"))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    print(json.dumps((_tensorflow if args.library == "tensorflow" else _pytorch)(args.threads)))
