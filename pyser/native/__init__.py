"""The compiled parts of pyser: plain C++ functions on buffers, built by setup.py where there is a compiler.

`import pyser` loads them before torch, for the sake of blas.cpp.
"""

from __future__ import annotations

import ctypes
import sysconfig
from pathlib import Path


def _load() -> ctypes.CDLL | None:
    path = Path(__file__).with_name("_native" + sysconfig.get_config_var("EXT_SUFFIX"))
    if not path.exists():
        return None
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)  # global: MKL must find mkl_serv_intel_cpu_true (blas.cpp)


library = _load()  # None where it could not be built: what it does is then done in torch, slower
