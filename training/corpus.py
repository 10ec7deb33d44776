"""The corpus: the documents of a text file, their tokens, and the training batches cut from them.

A file holds UTF-8 text in which a line holding only U+001E ends a document; a document keeps its last line feed.
"""

import hashlib
import pathlib
import re

import numpy as np
import pyarrow
import torch

END_OF_DOCUMENT = re.compile(r"^\x1e(?:\n|\Z)", re.MULTILINE)
EOS_ID = 0  # <|endoftext|>: ends a document, and stands before it as its start context


def read_bytes(path):
    """The bytes of a file, decompressed if its name ends in .zst."""
    with pyarrow.input_stream(str(path), compression="zstd" if str(path).endswith(".zst") else None) as stream:
        return stream.read()


def read_documents(path):
    """The texts of a file's documents, in order."""
    documents = END_OF_DOCUMENT.split(read_bytes(path).decode("utf-8"))
    return documents if documents[-1] else documents[:-1]


def token_stream(corpus, tokenizer_file, cache):
    """The whole corpus as one uint16 array [num_tokens]: EOS, then each document's tokens and EOS. Kept in folder `cache`."""
    from tokenizers import Tokenizer

    key = hashlib.sha256(pathlib.Path(corpus).read_bytes() + pathlib.Path(tokenizer_file).read_bytes()).hexdigest()
    file = pathlib.Path(cache) / f"tokens-{key[:16]}.npy"
    if not file.exists():
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        encodings = tokenizer.encode_batch_fast(read_documents(corpus), add_special_tokens=False)
        eos = np.array([EOS_ID], np.uint16)
        parts = [eos]
        for encoding in encodings:
            parts += [np.array(encoding.ids, np.uint16), eos]
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.concatenate(parts))
    return np.load(file)


class Batches:
    """Training windows of `context` + 1 tokens. Batch `step` depends on nothing but the tokens, the sizes and the seed.

    An epoch cuts the stream into windows from a random offset and visits them once, in random order.
    """

    def __init__(self, tokens, context, batch_size, seed, device):
        self._tokens = torch.from_numpy(tokens.astype(np.int32)).to(device)
        self._context = context
        self._batch_size = batch_size
        self._seed = seed
        self._window = torch.arange(context + 1, device=device)
        self._epoch = None
        self.per_epoch = (len(tokens) - 1 - context) // context // batch_size
        if self.per_epoch == 0:
            raise ValueError(f"{len(tokens)} tokens are too few for one batch of {batch_size} windows of {context}")

    def __call__(self, step):
        """int64 [batch_size, context + 1]; a row's last token is only a target."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, epoch])
            offset = int(rng.integers(self._context))
            order = rng.permutation((len(self._tokens) - 1 - offset) // self._context)
            self._starts = torch.from_numpy(order * self._context + offset).to(self._tokens.device)
            self._epoch = epoch
        starts = self._starts[index * self._batch_size : (index + 1) * self._batch_size]
        return self._tokens[starts[:, None] + self._window].long()
