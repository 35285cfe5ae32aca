import sys

import pytest

from pyser.errors import PyserError
from pyser.libraries import import_k2


def test_k2_that_cannot_be_loaded_says_why(tmp_path, monkeypatch):
    """The wheel of another Python carries its compiled half under another name."""
    (tmp_path / "k2").mkdir()
    (tmp_path / "k2/__init__.py").write_text("from _k2_of_another_python import Fsa\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "k2", raising=False)
    with pytest.raises(PyserError, match="^needs k2, which cannot be loaded here .No module named '_k2_of_another"):
        import_k2()


def test_k2_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "k2", None)
    with pytest.raises(PyserError, match="^needs k2: run local/install.sh"):
        import_k2()
