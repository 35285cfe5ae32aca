"""espeak-ng as a library (the espeakng-loader package carries it, with its voices): text to samples, no program needed."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from pyser.errors import PyserError

# espeak-ng's speak_lib.h
SYNCHRONOUS, RATE, PITCH, RANGE, UTF8 = 2, 1, 3, 4, 1
_parts: list[np.ndarray] = []


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
def _collect(samples: Any, count: int, events: Any) -> int:
    if samples and count > 0:
        _parts.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
    return 0


@cache
def _library() -> tuple[Any, int]:
    """(the library, its sampling rate)."""
    try:
        import espeakng_loader
    except ImportError:
        raise PyserError("needs espeakng-loader: run local/install.sh") from None
    library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    if rate <= 0:
        raise PyserError("espeak-ng cannot be initialised; install espeakng-loader again (local/install.sh)")
    library.espeak_SetSynthCallback(_collect)
    return library, int(rate)


def synthesise(voice: str, text: str, pitch: float, pitch_range: float, rate: float) -> tuple[np.ndarray, int]:
    """(samples (T,) in [-1, 1], sampling rate). pitch: 0-99, pitch_range: % of the voice's own, rate: words a minute."""
    library, sampling_rate = _library()
    if library.espeak_SetVoiceByName(voice.encode()):
        raise PyserError(f"espeak-ng has no voice {voice}")
    for parameter, value in ((RATE, rate), (PITCH, pitch), (RANGE, pitch_range / 2)):  # a range of 50 is the usual one
        library.espeak_SetParameter(parameter, round(value), 0)
    _parts.clear()
    spoken = text.encode()
    failed = library.espeak_Synth(spoken, ctypes.c_size_t(len(spoken) + 1), 0, 1, 0, UTF8, None, None)
    if failed or not _parts:
        raise PyserError(f"espeak-ng spoke nothing for '{text}' with voice {voice}")
    return np.concatenate(_parts) / 32768.0, sampling_rate
