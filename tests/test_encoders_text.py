"""Text encoders of Hugging Face, by a small BERT with random weights."""

import json

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from pyser.encoders import text as module
from pyser.encoders.text import batches, load_text
from pyser.errors import PyserError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["the", "cat", "sat", "on", "mat", "##s", "a"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_bert(tmp_path_factory.mktemp("bert"))


def make_bert(folder):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(SPECIAL + PIECES), hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=32, max_position_embeddings=12, initializer_range=0.5)
    BertModel(config).save_pretrained(folder)
    write_vocabulary(folder)
    return folder


def write_vocabulary(folder):
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in SPECIAL + PIECES))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))


def test_as_the_model_itself(bert):
    """Tokens by hand, one sentence at a time, without masks."""
    encoder = load_text(bert)
    model = BertModel.from_pretrained(bert).eval()
    assert encoder.dim == 16 and encoder.max_tokens == 12
    for sentence, ids in (("The cats sat", [2, 5, 6, 10, 7, 3]), ("a zebra", [2, 11, 1, 3]), ("", [2, 3])):
        assert encoder.tokens(sentence) == ids
        with torch.no_grad():
            wanted = model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        (found,) = encoder.features([sentence])
        assert found.shape == (len(ids), 16) and found.dtype == np.float32 and found.flags.owndata
        assert np.abs(found - wanted).max() < 1e-5


def test_roberta_counts_from_behind_its_padding(tmp_path):
    """As many tokens as it has positions for, where its tokenizer does not say."""
    torch.manual_seed(0)
    RobertaModel(RobertaConfig(vocab_size=len(SPECIAL + PIECES), hidden_size=16, num_hidden_layers=1, num_attention_heads=4,
                               intermediate_size=32, max_position_embeddings=14, pad_token_id=0)).save_pretrained(tmp_path)
    write_vocabulary(tmp_path)
    encoder = load_text(tmp_path)
    assert encoder.max_tokens == 13
    (found,) = encoder.features(["the cat sat on the mat " * 4])
    assert found.shape == (13, 16) and np.isfinite(found).all()


def test_padding_changes_nothing(bert, monkeypatch):
    encoder = load_text(bert)
    sentences = ["the cat sat on the mat", "a", "", "the mats", "cats on a mat"]
    together = encoder.features(sentences)
    for sentence, found in zip(sentences, together, strict=True):
        assert np.abs(found - encoder.features([sentence])[0]).max() < 1e-5
        beside = encoder.features(["the cat sat on the mat the cat sat", sentence])[1]
        assert beside.shape == found.shape and np.abs(beside - found).max() < 1e-5
    monkeypatch.setattr(module, "BATCH_TOKENS", 8)  # several batches: the order is still the sentences'
    for one, other in zip(together, encoder.features(sentences), strict=True):
        assert np.abs(one - other).max() < 1e-5
    assert encoder.features([]) == []


def test_batches():
    assert batches([4, 2, 30, 3, 2], 10) == [[1, 4, 3], [0], [2]]


def test_capitals_and_long_sentences(bert):
    encoder = load_text(bert)
    assert encoder.tokens("THE CAT") == encoder.tokens("the cat")
    encoder.tokenizer.model_max_length = 6
    assert encoder.tokens("the cat sat on the mat") == [2, 5, 6, 7, 8, 3]
    assert encoder.features(["the cat sat on the mat"])[0].shape == (6, 16)


def test_cased_model_reads_small_letters(tmp_path):
    folder = make_bert(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False}))
    encoder = load_text(folder)
    assert encoder.tokens("THE CAT") == [2, 5, 6, 3]  # a transcript
    assert encoder.tokens("The cat") == [2, 1, 6, 3]  # written text


def test_what_cannot_be_loaded(tmp_path):
    folder = make_bert(tmp_path / "more_layers")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(PyserError, match=r"its weights lack encoder\.layer\.2\."):
        load_text(folder)

    folder = make_bert(tmp_path / "cut")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(PyserError, match="not a model that transformers can load"):
        load_text(folder)

    folder = make_bert(tmp_path / "code")  # what a configuration names is not run
    (folder / "evil.py").write_text("raise SystemExit('run')\n")
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": {
        "AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}))
    with pytest.raises(PyserError, match="not a model that transformers can load"):
        load_text(folder)


def test_a_speech_model_is_refused(tmp_path):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    folder = make_bert(tmp_path)
    Wav2Vec2Model(Wav2Vec2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=(8,), conv_stride=(5,),
        conv_kernel=(10,), num_feat_extract_layers=1, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )).save_pretrained(folder)
    with pytest.raises(PyserError, match="a wav2vec2, not a text encoder"):
        load_text(folder)
