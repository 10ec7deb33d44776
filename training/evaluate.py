"""Bits per byte of a model folder on a text file: python -m training.evaluate --model models/switch-mini --text data/valid.txt.zst

Documents are scored apart. A document is its tokens and an EOS, and an EOS before it is its start context. It is read in windows
of the context length at a stride of half of it; a window scores only the tokens that no earlier one scored. The bits of all
documents are divided by the bytes of the (uncompressed) file, its separators included.
"""

import argparse
import json
import math
import pathlib

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from training.corpus import EOS_ID, read_bytes, read_documents
from training.export import load_folder


def windows(ids, context):
    """Cuts [EOS, document, EOS] into (first input, inputs, first scored target) of at most `context` inputs."""
    stride = context // 2
    scored = 1  # the first target not yet scored
    for first in range(0, len(ids), stride):
        inputs = min(context, len(ids) - 1 - first)
        yield first, inputs, scored
        scored = first + inputs + 1
        if scored == len(ids):
            return


@torch.no_grad()
def evaluate(model, tokenizer, text_file, device="cpu", batch_size=16):
    """Scores the file in float32. Returns the figures as a dict."""
    model = model.to(device).eval()
    context = model.config.max_position_embeddings
    work = []  # (inputs and targets as one list, number of leading targets to leave out)
    for encoding in tokenizer.encode_batch(read_documents(text_file), add_special_tokens=False):
        ids = [EOS_ID, *encoding.ids, EOS_ID]
        for first, inputs, scored in windows(ids, context):
            work.append((ids[first : first + inputs + 1], scored - first - 1))
    work.sort(key=lambda item: len(item[0]))
    nats, tokens = 0.0, 0
    load = torch.zeros(model.config.num_hidden_layers, model.config.num_experts, dtype=torch.float64)
    for start in range(0, len(work), batch_size):
        group = work[start : start + batch_size]
        length = len(group[-1][0])
        batch = torch.full((len(group), length), EOS_ID)
        scored = torch.zeros(len(group), length - 1, dtype=torch.bool)
        for row, (ids, skip) in enumerate(group):
            batch[row, : len(ids)] = torch.tensor(ids)
            scored[row, skip : len(ids) - 1] = True
        batch, scored = batch.to(device), scored.to(device)
        hidden, routings = model(batch[:, :-1])
        loss = F.cross_entropy(model.logits(hidden[scored]), batch[:, 1:][scored], reduction="none")
        nats += loss.double().sum().item()
        tokens += loss.numel()
        for layer, routing in enumerate(routings):
            load[layer] += routing.choices[scored].flatten().cpu().bincount(minlength=load.shape[1])
    num_bytes = len(read_bytes(text_file))
    return {
        "bits_per_byte": nats / math.log(2) / num_bytes,
        "nats_per_token": nats / tokens,
        "tokens": tokens,
        "bytes": num_bytes,
        "expert_load": (load / load.sum(dim=1, keepdim=True)).tolist(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=pathlib.Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    text = json.dumps(evaluate(load_folder(arguments.model), tokenizer, arguments.text, arguments.device))
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
