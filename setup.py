"""pyser: Kaldi-compatible acoustic models in Python, transferred to speech emotion recognition.

Every version that pyser pins is pinned here and nowhere else:
`k2` is the default stack (Python 3.10, torch 1.13.1), `torch2` the modern one without k2.
"""

import platform
from glob import glob

from setuptools import Extension, find_packages, setup

COMMON = [
    "click==8.1.8",
    "espeakng-loader==0.2.4",  # carries espeak-ng, which speaks egs/mini's corpora
    "flashlight-text==0.0.7",  # CTC beam search with a lexicon and an n-gram LM
    "kaldi-decoder==0.3.2",  # decodes where k2 is not installed
    "kaldi-native-fbank==1.22.5",  # features of streams, and the reference of ours
    "kaldifst==1.8.3",
    "matplotlib==3.10.1",
    "safetensors==0.8.0",
    "scipy==1.15.3",
    "soundfile==0.14.0",
    "tensorboard==2.21.0",
    "tqdm==4.67.1",
    "vaderSentiment==3.3.2",  # sentiment of transcripts without a model
]

# Not Python modules but plain libraries for ctypes, one for each generation of x86-64; pyser.native takes the newest that
# the processor knows. Without a compiler pyser does the same in torch, slower.
GENERATIONS = {"": [], "_v3": ["-march=x86-64-v3"], "_v4": ["-march=x86-64-v4"]}
NATIVE = [
    Extension(f"pyser.native._native{name}", sorted(glob("pyser/native/*.cpp")), depends=glob("pyser/native/*.h"),
              optional=True, extra_compile_args=["-O3", "-std=c++17", "-Wno-psabi", *flags])
    for name, flags in GENERATIONS.items() if not name or platform.machine() == "x86_64"
]

setup(
    name="pyser",
    version="0.1.0",
    description="Kaldi-compatible hybrid ASR to speech emotion recognition",
    license="Apache-2.0",
    packages=find_packages(include=["pyser", "pyser.*"]),
    package_data={"pyser": ["py.typed"]},
    ext_modules=NATIVE,
    python_requires=">=3.10",
    install_requires=["click", "kaldi-native-fbank", "lhotse", "matplotlib", "numpy",
                      "safetensors", "scipy", "soundfile", "tqdm", "torch"],
    extras_require={
        "k2": [
            *COMMON,
            "k2==1.23.4",
            "kaldialign==0.12.0",
            "kaldilm==1.15.5",
            "lhotse==1.32.1",  # the samplers of 1.32.2 and later fail on torch 1.13.1, this one's on torch 2.13
            "numpy==1.26.4",
            "pocketsphinx==5.0.4",  # carries CMUdict (BSD), the default English lexicon
            "torch==1.13.1",
            "torchaudio==0.13.1",
            "transformers==4.49.0",  # the newest that runs with torch 1.13.1
        ],
        "torch2": [
            *COMMON,
            "kaldialign==0.12.0",
            "kaldilm==1.15.5",
            "lhotse==1.33.0",
            "pocketsphinx==5.0.4",
            "torch==2.13.0",
            "transformers==5.17.0",
            "urllib3==2.8.0",  # lhotse imports it without saying so
        ],
        "test": ["hypothesis==6.130.0", "mypy==1.15.0", "pytest==8.3.5", "ruff==0.11.2"],
    },
    entry_points={"console_scripts": ["pyser=pyser.cli:main"]},
)
