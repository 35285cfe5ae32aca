"""The compiled library is there where there is a compiler, and is loaded before torch."""

import shutil
import subprocess
import sys

import pytest

from pyser import native

needs_library = pytest.mark.skipif(native.library is None and not shutil.which("g++"), reason="needs a C++ compiler")


@needs_library
def test_it_was_built():
    assert native.library is not None and native.library.mkl_serv_intel_cpu_true() == 1


@needs_library
def test_it_comes_before_torch():
    order = "import sys, pyser; assert 'torch' not in sys.modules and 'numpy' not in sys.modules and pyser.native.library"
    subprocess.run([sys.executable, "-c", order], check=True)
