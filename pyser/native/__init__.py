"""The compiled parts of pyser: plain C++ functions on buffers, built by setup.py where there is a compiler.

`import pyser` loads them before torch, for the sake of blas.cpp and of an environment variable.
"""

from __future__ import annotations

import ctypes
import os
import sysconfig
from pathlib import Path
from typing import Any


def _generations() -> list[str]:
    """The libraries that this processor can run, best first."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().partition("\n\n")[0].split())
    except OSError:
        flags = set()
    v3 = {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"} <= flags
    v4 = v3 and {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= flags
    return ["_v4"] * v4 + ["_v3"] * v3 + [""]


def _load() -> ctypes.CDLL | None:
    for name in _generations():
        path = Path(__file__).with_name(f"_native{name}" + sysconfig.get_config_var("EXT_SUFFIX"))
        if path.exists():
            return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)  # global: MKL must find our function (blas.cpp)
    return None


# oneDNN compiles a kernel for each shape of a product, and forgets it when 1024 others came; a training has more shapes.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
library = _load()  # None where it could not be built: what it does is then done in torch, slower


def pointer(array: Any) -> ctypes.c_void_p:
    """A contiguous numpy array or CPU tensor, as an argument."""
    return ctypes.c_void_p(array.data_ptr() if hasattr(array, "data_ptr") else array.ctypes.data)


def size(number: int) -> ctypes.c_int64:
    return ctypes.c_int64(number)


def real(number: float) -> ctypes.c_double:
    return ctypes.c_double(number)
