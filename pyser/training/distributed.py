"""Training in several processes: each takes its part of every batch, and gradients and statistics are added up.

Started by torchrun (RANK, WORLD_SIZE and the rest in the environment) or by `launch`; gloo between processors, nccl between
GPUs.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from pyser.errors import PyserError


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_(tensor: Tensor) -> Tensor:
    """`tensor`, summed over the processes in place; it may be anywhere."""
    if world_size() > 1:
        moved = tensor.cuda() if dist.get_backend() == "nccl" else tensor
        dist.all_reduce(moved)
        if moved is not tensor:
            tensor.copy_(moved)
    return tensor


def sum_stats(stats: dict[str, float]) -> dict[str, float]:
    """The sum of the processes' figures, whose names agree."""
    names = sorted(stats)
    return dict(zip(names, sum_(torch.tensor([stats[n] for n in names], dtype=torch.float64)).tolist(), strict=True))


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Gradients become their sum over the processes."""
    if world_size() > 1:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = sum_(torch.cat([g.flatten() for g in gradients]))
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)


def broadcast(module: nn.Module) -> None:
    """Parameters and buffers become those of process 0."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            if rank() != 0:
                tensor.zero_()
            sum_(tensor)


def launch(function: Callable[..., object], size: int, *arguments: Any) -> None:
    """Call function(*arguments), an importable function, in `size` processes; within torchrun in this process, as one of its.

    PyserError when one of them fails; the others are ended.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        if size not in (1, int(os.environ["WORLD_SIZE"])):
            raise PyserError(f"--world-size {size}, but torchrun started {os.environ['WORLD_SIZE']} processes; leave it out")
        _join(function, arguments)
        return
    if size == 1:
        function(*arguments)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(size)}
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads and the GPU
    processes = []
    for number in range(size):
        own = environment | {"RANK": str(number), "LOCAL_RANK": str(number)}
        processes.append(context.Process(target=_start, args=(own, function, arguments)))
    for process in processes:
        process.start()
    try:
        running = list(processes)
        while running:
            ended = wait([process.sentinel for process in running])
            for process in [p for p in running if p.sentinel in ended]:
                running.remove(process)
                process.join()
                if process.exitcode:
                    raise PyserError(f"process {processes.index(process)} of {size} ended with {process.exitcode}; "
                                     "what it said is above")
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            process.join()


def _start(environment: dict[str, str], function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _join(function, arguments)
    except PyserError as error:
        raise SystemExit(f"pyser: {error}") from None


def _end_with_parent() -> None:
    """A killed training must not go on without its head."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _join(function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()
