"""The network without its training: what transfer is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pyser.errors import PyserError
from pyser.kaldi.tables import load_mat, read_scp
from pyser.nn.model_io import file_digest, load_tdnnf, save
from pyser.nn.tdnnf import BatchNorm, TdnnF

NUM_UTTS = 256  # spread evenly over the list
BATCH = 32  # utterances normalised together, as in training
FRAMES = 150  # from the middle of each


def untrained(
    model_path: str | Path, out_path: str | Path, feats_scp: str | Path, ivectors_scp: str | Path | None, seed: int = 0
) -> str:
    """Write a network of `model_path`'s configuration with random parameters; returns the closing line.

    Two things need no transcripts and are kept fair: the fixed transform in front (it whitens the input) is the trained
    network's, and the batch normalisations get the statistics of up to `NUM_UTTS` utterances of `feats_scp`.
    """
    trained = load_tdnnf(model_path)
    torch.manual_seed(seed)
    model = TdnnF(trained.config)
    model.set_lda(trained.lda_matrix, trained.lda_offset)
    model.set_dropout(0.0)
    feats, ivectors = read_scp(feats_scp), read_scp(ivectors_scp) if ivectors_scp else {}
    if bool(ivectors) != bool(trained.config.ivector_dim):
        raise PyserError(f"{model_path}: give --ivectors if and only if the network was trained with i-vectors")
    utts = [utt for utt in feats if not ivectors or utt in ivectors]  # those without are counted when they are dumped
    if not utts:
        raise PyserError(f"{feats_scp}: no utterance with features and i-vectors; check that the two lists agree")
    num = min(NUM_UTTS, len(utts))
    utts = [utts[i * len(utts) // num] for i in range(num)]
    batchnorms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    model.train()
    with torch.no_grad():
        for number, batch in enumerate(np.array_split(utts, -(-num // BATCH)), start=1):
            for module in batchnorms:
                module.momentum = 1 / number  # plain averages over the batches
            x = np.stack([middle(load_mat(feats[utt]), model.left_context, model.right_context) for utt in batch])
            rows = np.stack([load_mat(ivectors[utt])[-1] for utt in batch]) if ivectors else None
            model(torch.from_numpy(x), None if rows is None else torch.from_numpy(rows))
    save(out_path, model.eval(), model.config, {"seed": str(seed), "untrained": file_digest(model_path)})
    return f"{out_path}: random parameters (seed {seed}), batch normalisation over {num} utterances"


def middle(feats: np.ndarray, left: int, right: int) -> np.ndarray:
    """The FRAMES middle frames of feats (T, D) with their context, (left + FRAMES + right, D); the first and last frame
    repeat beyond the edges."""
    start = (len(feats) - FRAMES) // 2
    return feats[np.arange(start - left, start + FRAMES + right).clip(0, len(feats) - 1)]
