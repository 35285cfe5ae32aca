"""How fast networks are computed: python tests/bench/nnet3.py [final.mdl ...]

run_tdnn_1g (9.4 million parameters, random ones unless a model is given) to tdnnf12.noop, one thread, seconds of processor
time for 600 s of audio, medians of 5, and the share of torch's own float32 matrix product that the arithmetic reaches.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyser  # noqa: E402,F401  (before torch: see pyser.native)

# isort: split
import numpy as np  # noqa: E402
import torch  # noqa: E402

from pyser.nn.components import Affine  # noqa: E402
from pyser.nn.compute import ComputeConfig, compute  # noqa: E402
from pyser.nn.model_io import load_nnet3  # noqa: E402
from pyser.nn.nnet3 import Nnet3  # noqa: E402
from pyser.nn.tdnnf import TdnnF, TdnnfConfig  # noqa: E402
from pyser.nn.tdnnf_nnet3 import to_nnet3  # noqa: E402

FRAMES = 6000
SCALE = 60_000 / FRAMES


def seconds(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(5):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def operations(model: Nnet3, node: str, config: ComputeConfig) -> float:
    """Multiplications and additions of all matrix products for FRAMES frames."""
    plan = model._plan(node, config.chunk(1), config.frame_subsampling_factor)
    each = 0.0
    for step in plan.steps:
        layer = model.layer(model.nnet.nodes[step.node].component)  # type: ignore[union-attr]
        if isinstance(layer, Affine):
            each += 2.0 * step.frames * layer.weight.numel()
    return each * FRAMES / config.chunk(1)


def main() -> None:
    torch.set_num_threads(1)
    models = sys.argv[1:] or [""]
    random = np.random.default_rng(0)
    square = torch.randn(2048, 2048)
    peak = 2 * 2048**3 / seconds(lambda: square @ square)
    print(f"float32 matrix product: {peak / 1e9:.0f} billion operations a second")
    for path in models:
        model = load_nnet3(path) if path else Nnet3(to_nnet3(TdnnF(TdnnfConfig()))).eval()
        node = model.full_name("tdnnf12") if "tdnnf12.noop" in model.nnet.nodes else "output"
        feats = random.normal(size=(FRAMES, model.input_dim("input"))).astype(np.float32)
        ivectors = random.normal(size=(FRAMES // 10, model.input_dim("ivector"))).astype(np.float32)
        given = ivectors if model.input_dim("ivector") else None
        for name, config, half in (("chunk 50", ComputeConfig(node), False), ("chunk 150", ComputeConfig(node, 150), False),
                                   ("fast", ComputeConfig(node, fast=True), False),
                                   ("fast, bfloat16", ComputeConfig(node, fast=True), True)):
            if half:
                model = model.bfloat16()
            taken = seconds(lambda c=config, m=model, x=feats, v=given: compute(m, x, v, c))
            reached = operations(model, node, config) / taken / peak
            real_time = taken / (FRAMES * 0.01)
            print(f"{name:16}{taken * SCALE:8.2f} s  {real_time:8.4f} x real time  {100 * reached:5.0f} % of it")


if __name__ == "__main__":
    main()
