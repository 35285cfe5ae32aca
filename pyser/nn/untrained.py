"""The network without its training: what transfer is compared with."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import torch

from pyser.errors import PyserError
from pyser.kaldi.tables import load_matrix, read_scp
from pyser.nn.model_io import load_tdnnf, save
from pyser.nn.tdnnf import BatchNorm, TdnnF

NUM_UTTS = 200


def untrained(
    model_path: str | Path, out_path: str | Path, feats_scp: str | Path, ivectors_scp: str | Path | None, seed: int = 0
) -> str:
    """Write a network of `model_path`'s configuration with random parameters; returns the closing line.

    Two things need no transcripts and are kept fair: the fixed transform in front (it whitens the input) is the trained
    network's, and the batch normalisations get the statistics of `NUM_UTTS` utterances of `feats_scp`.
    """
    trained = load_tdnnf(model_path)
    torch.manual_seed(seed)
    model = TdnnF(trained.config)
    model.set_lda(trained.lda_matrix, trained.lda_offset)
    model.set_dropout(0.0)
    batchnorms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    feats, ivectors = read_scp(feats_scp), read_scp(ivectors_scp) if ivectors_scp else {}
    if bool(ivectors) != bool(trained.config.ivector_dim):
        raise PyserError(f"{model_path}: give --ivectors if and only if the network was trained with i-vectors")
    chosen = list(islice(feats, 0, None, max(1, len(feats) // NUM_UTTS)))
    model.train()
    with torch.no_grad():
        for number, utt in enumerate(chosen, start=1):
            for module in batchnorms:
                module.momentum = 1 / number  # plain averages over the utterances
            x = np.pad(load_matrix(feats[utt]), ((model.left_context, model.right_context), (0, 0)), mode="edge")
            ivector = None
            if ivectors:
                if utt not in ivectors:
                    raise PyserError(f"{ivectors_scp}: {utt} is missing; extract the i-vectors of {feats_scp}")
                ivector = torch.from_numpy(load_matrix(ivectors[utt])[-1:])
            model(torch.from_numpy(x)[None], ivector)
    save(out_path, model.eval(), model.config, {"seed": str(seed)})
    return f"{out_path}: random parameters (seed {seed}), batch normalisation over {len(chosen)} utterances"
