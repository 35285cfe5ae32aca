"""pyser: train a Kaldi-style acoustic model on transcribed speech, transfer it to emotion recognition."""

__version__ = "0.1.0"
