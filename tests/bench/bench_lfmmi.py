"""LF-MMI, numerator and denominator, forward and backward: pyser's engine against k2's, in one process on one thread.

    OMP_NUM_THREADS=1 python tests/bench/bench_lfmmi.py [--exact-big] [--frames 150]

Neither side has a leak here: k2 cannot. k2 takes part where it is installed; --exact-big: its exact intersection on the
2000-state graph too (13 s, 4 GB). Seconds are the processor's, so that other work on the machine counts little. The memory
is what a side needs beyond what the process took before.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyser  # noqa: F401  (before torch: see pyser.native)

# isort: split
import numpy as np
import torch

from pyser import native
from pyser.chain import Graph, LfMmi, LfMmiConfig

SEQUENCES = 16


def phone_bigram(phones: int, seed: int = 0) -> Graph:
    """A state for each phone and one to start; pdf 2p on entry of phone p, 2p + 1 in its self-loop."""
    rng = np.random.default_rng(seed)
    arcs, weights = [], []
    for state in range(phones + 1):
        for phone, p in enumerate(rng.dirichlet(np.full(phones, 0.3))):
            arcs.append((state, phone + 1, 2 * phone))
            weights.append(np.log(0.5 * p + 1e-6))
        if state:
            arcs.append((state, state, 2 * state - 1))
            weights.append(np.log(0.5))
    return Graph(np.array(arcs), np.array(weights), np.full(phones + 1, np.log(0.05)))


def random_graph(states: int, arcs_per_state: int, pdfs: int, seed: int = 0) -> Graph:
    rng = np.random.default_rng(seed)
    num = states * arcs_per_state
    arcs = np.stack([np.repeat(np.arange(states), arcs_per_state), rng.integers(states, size=num),
                     rng.integers(pdfs, size=num)], axis=1)
    return Graph(arcs, np.log(rng.dirichlet(np.ones(arcs_per_state), states).ravel() + 1e-6), np.full(states, np.log(0.05)))


def transcript(length: int, pdfs: int, rng: np.random.Generator) -> Graph:
    """Phones in a row, each with a self-loop, an optional silence (pdfs 0 and 1) between any two."""
    arcs, weights, state = [], [], 0
    for _ in range(length):
        phone = 2 * int(rng.integers(1, pdfs // 2))
        arcs += [(state, state + 1, 0), (state, state + 2, phone), (state + 1, state + 1, 1),
                 (state + 1, state + 2, phone), (state + 2, state + 2, phone + 1)]
        weights += [-1.2, -0.7, -0.7, -0.7, -0.7]
        state += 2
    finals = np.full(state + 1, -np.inf)
    finals[state] = 0
    return Graph(np.array(arcs), np.array(weights), finals)


def outputs(graphs: list[Graph], frames: int, pdfs: int, peaky: bool, rng: np.random.Generator) -> torch.Tensor:
    """Standard normal; a trained network's are 12 higher along a path of the transcript."""
    y = rng.standard_normal((len(graphs), frames, pdfs), dtype=np.float32)
    for n, graph in enumerate(graphs if peaky else []):
        path = graph.arcs[graph.arcs[:, 2] % 2 == 0][1::3, 2]  # one entry pdf for each phone
        for t in range(frames):
            at = t * len(path) // frames
            entry = t == 0 or at != (t - 1) * len(path) // frames
            y[n, t, path[at] + (0 if entry else 1)] += 12
    return torch.from_numpy(y)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Of the processor, the median."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def memory_of(call: Callable[[], object]) -> float:
    """MB that the process grows by, at its peak, in a call on a thread of its own (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far

    def field(name: str) -> float:
        return float(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1024

    before, thread = field("VmRSS"), threading.Thread(target=call)
    thread.start()
    thread.join()
    return field("VmHWM") - before


def roofline() -> tuple[float, float]:
    """What one core can do: billions of float32 multiply-adds a second in a large product, GB/s in a copy."""
    a, here, there = torch.randn(1024, 1024), torch.randn(16 << 20), torch.randn(16 << 20)
    product, copy = seconds(lambda: a @ a, 5), seconds(lambda: there.copy_(here), 5)
    return 1024**3 / product / 1e9, 2 * here.numel() * 4 / copy / 1e9


@dataclass
class Problem:
    name: str
    graph: Graph
    pdfs: int
    peaky: bool
    frames: int

    def __post_init__(self) -> None:
        rng = np.random.default_rng(1)
        self.graphs = [transcript(self.frames // 5, self.pdfs, rng) for _ in range(SEQUENCES)]
        self.lengths = torch.full((SEQUENCES,), self.frames)
        self.output = outputs(self.graphs, self.frames, self.pdfs, self.peaky, rng).requires_grad_()

    def engine(self, name: str, leak: float = 0.0, beam: float = 1000.0) -> LfMmi:
        return LfMmi(self.graph, name, LfMmiConfig(leak, 0.0, 0.0, 0.0, beam))

    def step(self, lfmmi: LfMmi) -> float:
        self.output.grad = None
        loss, _ = lfmmi(self.output, None, self.lengths, self.graphs, penalize=False)
        loss.backward()
        self.loss = float(loss.detach())
        return self.loss

    def gradient(self) -> torch.Tensor:
        assert self.output.grad is not None
        return self.output.grad * (SEQUENCES * self.frames)

    def native(self, peak_product: float, peak_copy: float) -> tuple[float, float, float]:
        """Seconds of a step and of one in torch, and MB."""
        lfmmi = self.engine("native")
        memory = memory_of(partial(self.step, lfmmi))
        if native.library is None:
            plain = seconds(partial(self.step, lfmmi), 3)
            print(f"  torch        {1e3 * plain:9.1f} ms")
            return plain, plain, memory
        self.step(lfmmi)
        whole = seconds(partial(self.step, lfmmi), 15)
        leaky = seconds(partial(self.step, self.engine("native", 0.1)), 15)
        data = self.output.detach()
        num = seconds(partial(lfmmi.numerator_scores, self.graphs, data, self.lengths), 15)
        den = seconds(partial(lfmmi.denominator_scores, data, self.lengths), 15)
        cells = SEQUENCES * self.frames
        rate = 2 * len(self.graph.arcs) * cells / den / 1e9
        moved = 4 * cells * (2 * self.graph.num_states + 4 * self.pdfs) / den / 1e9  # alphas and outputs, there and back
        print(f"  compiled     {1e3 * whole:9.1f} ms (numerators {1e3 * num:.1f}, denominator {1e3 * den:.1f}; with a leak "
              f"{1e3 * leaky:.1f} in all), {memory:.0f} MB")
        print(f"    denominator: {rate:.1f} G multiply-adds/s, {100 * rate / peak_product:.0f}% of a matrix product's; "
              f"{moved:.1f} GB/s, {100 * moved / peak_copy:.0f}% of a copy's")
        library, native.library = native.library, None
        plain = seconds(partial(self.step, lfmmi), 3)
        native.library = library
        print(f"  torch        {1e3 * plain:9.1f} ms")
        self.step(lfmmi)
        return whole, plain, memory

    def k2(self, beam: float, loss: float, gradient: torch.Tensor) -> tuple[float, float]:
        """Seconds of a step, and MB."""
        lfmmi = self.engine("k2", beam=beam)
        start = time.process_time()
        memory = memory_of(partial(self.step, lfmmi))
        once = time.process_time() - start
        apart = float((self.gradient() - gradient).abs().max())
        if once < 2:
            once = seconds(partial(self.step, lfmmi), 3)
        print(f"  k2 beam {beam:4g} {1e3 * once:9.1f} ms, {memory:.0f} MB; loss {self.loss:.6f} against {loss:.6f} a frame, "
              f"gradients apart by up to {apart:.1e}")
        return once, memory


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exact-big", action="store_true")
    parser.add_argument("--frames", type=int, default=150)
    args = parser.parse_args()
    torch.set_num_threads(1)
    beams = [8.0, 1000.0] if importlib.util.find_spec("k2") else []
    product, copy = roofline()
    print(f"one core: {product:.0f} G multiply-adds/s in a matrix product, {copy:.0f} GB/s in a copy")
    bigram, big, wide = phone_bigram(42), random_graph(2000, 10, 84), random_graph(2000, 10, 2000)
    summary = []
    for problem in (
        Problem("phone bigram, random outputs", bigram, 84, False, args.frames),
        Problem("phone bigram, peaky outputs", bigram, 84, True, args.frames),
        Problem("2000 states, random outputs", big, 84, False, args.frames),
        Problem("2000 states, peaky outputs", big, 84, True, args.frames),
        Problem("2000 states, 2000 pdfs", wide, 2000, False, args.frames),
    ):
        graph = problem.graph
        print(f"\n{problem.name}: {graph.num_states} states, {len(graph.arcs)} arcs, {problem.pdfs} pdfs; {SEQUENCES} "
              f"sequences x {args.frames} frames, numerators of {len(problem.graphs[0].arcs)} arcs")
        loss = problem.step(problem.engine("native"))
        ours, plain, mine = problem.native(product, copy)
        summary.append(f"{problem.name}: compiled {plain / ours:.0f}x as fast as torch")
        gradient = problem.gradient()
        for beam in beams:
            if beam > 100 and graph is not bigram and not (args.exact_big and graph is big and not problem.peaky):
                continue
            theirs, memory = problem.k2(beam, loss, gradient)
            summary.append(f"{problem.name}: {theirs / ours:.0f}x as fast as k2 with output_beam {beam:g}"
                           f" in a {memory / mine:.0f}th of the memory")
    print("\n" + "\n".join(summary))


if __name__ == "__main__":
    main()
