"""Writes the golden files of the two trained models: python tests/golden/generate.py   (packages: training/requirements.txt)

The reference is float32 on the CPU from the bfloat16 weights: Hugging Face transformers for qwen3-moe-mini, the training code's
model for switch-mini. For qwen3-moe-mini the two must also agree with each other. Each model's folder gets

    cases.json           versions, and for ten texts: the text, its token ids, the experts of each token and layer (best first), 64
                         greedy tokens after it, the smallest margins met on the way, and the positions of the stored logits
    logits.safetensors   float32 [positions, vocab] named case_0 ... case_9: the logits after the tokens at those positions

A text is left out when a greedy choice or a router's choice was close, since rounding could turn it.
"""

import hashlib
import itertools
import json
import pathlib
import platform
import sys

import numpy
import safetensors
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from training.corpus import EOS_ID  # noqa: E402
from training.export import load_folder  # noqa: E402

CASES = 10
GREEDY_TOKENS = 64
POSITIONS = 8
MIN_LOGIT_MARGIN = 2e-3  # between the best two logits of a greedy step
MIN_ROUTER_MARGIN = 2e-5  # between two router logits next to each other, down to the first expert left out
MAX_DISAGREEMENT = 1e-5  # ||difference|| / ||reference|| between transformers and the training code

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "In the beginning God created the heaven and the earth. And the earth was without form, and void;",
    "To install the package, run the following command as root:\n\n",
    "gnome, n.: A small, misshapen creature that lives under the ground and guards",
    "A knife is a tool with a sharp edge. It is used for cutting bread, meat and rope, and sometimes for opening letters.",
    "The captain looked at the stars for a long time before she spoke. \"We have enough fuel for one more jump,\" she said,"
    " \"and after that we will have to land, wherever we are.\" Nobody answered. The engines hummed below the deck, the lights"
    " went dim and bright again, and the small ship turned slowly towards the dark side of the planet. There was nothing on the"
    " map but a name, and nobody on board knew what",
    "Café, naïve and “quoted” words — and a snowman ☃ — are not plain ASCII, but",
    "SELECT name, price FROM products WHERE price > 100 ORDER BY name;\n\nThis query returns",
    "The year 1848 saw revolutions in France, Germany, Italy and Austria; by 1850",
    "def add(a, b):\n    return a + b\n\nThe function above",
    "User: What is a computer?\n\nAssistant:",
    "You stand at the gates of an old castle. The wind howls, and far away you hear the",
    "Water boils at 100 degrees Celsius at sea level. At higher altitudes, where the pressure of the air is lower,",
    "Options:\n  -h, --help     Show this help and exit.\n  -v, --verbose",
    "The Lord is my shepherd; I shall not want. He maketh me to lie down in green pastures:",
    "A linked list is a data structure in which each element points to the next one. Unlike an array,",
    "All men are by nature equally free and independent, and have certain rights, of which",
    "The file could not be opened because it does not exist or because you do not have permission to",
    "mountain: A large mass of earth and rock, rising above the common level of the earth",
    "When the program starts, it reads its configuration from the file",
)


class TrainingReference:
    """The training code's model. `run`: ids to logits [T, vocab] and router logits [layers, T, experts]."""

    name = "the training code's model (training/model.py)"

    def __init__(self, folder):
        self._model = load_folder(folder)

    def run(self, ids):
        hidden, routings = self._model(torch.tensor([ids]))
        return self._model.logits(hidden)[0], torch.stack([routing.logits[0] for routing in routings])


class TransformersReference:
    """Hugging Face transformers. The router scores are log-probabilities: their differences are those of the logits."""

    name = "transformers, Qwen3MoeForCausalLM"

    def __init__(self, folder):
        self._model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._scores = []
        for layer in self._model.model.layers:
            layer.mlp.gate.register_forward_hook(self._record)

    def _record(self, gate, inputs, _):
        logits = torch.nn.functional.linear(inputs[0].flatten(0, -2), gate.weight)
        self._scores.append(logits.float().log_softmax(dim=-1))

    def run(self, ids):
        self._scores.clear()
        logits = self._model(torch.tensor([ids])).logits[0]
        return logits, torch.stack(self._scores)


def make_case(reference, tokenizer, top_k, text):
    """The case of one text and its logits, or None where a choice is too close or the text ends early."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    sequence, logit_margin = list(ids), float("inf")
    for _ in range(GREEDY_TOKENS):
        best = reference.run(sequence)[0][-1].topk(2)
        logit_margin = min(logit_margin, (best.values[0] - best.values[1]).item())
        sequence.append(best.indices[0].item())
    _, scores = reference.run(sequence)
    ranked = scores.topk(top_k + 1, dim=-1).values
    router_margin = (ranked[..., :-1] - ranked[..., 1:]).min().item()
    if EOS_ID in sequence or logit_margin < MIN_LOGIT_MARGIN or router_margin < MIN_ROUTER_MARGIN:
        print(f"left out: logit margin {logit_margin:.1e}, router margin {router_margin:.1e}, {text[:40]!r}")
        return None
    logits, scores = reference.run(ids)
    positions = torch.linspace(0, len(ids) - 1, POSITIONS).long().unique()
    case = {
        "text": text,
        "input_ids": ids,
        "router_choices": scores.topk(top_k, dim=-1).indices.transpose(0, 1).tolist(),
        "greedy_ids": sequence[len(ids) :],
        "greedy_text": tokenizer.decode(sequence[len(ids) :]),
        "min_logit_margin": logit_margin,
        "min_router_margin": router_margin,
        "logits_positions": positions.tolist(),
    }
    return case, logits[positions].contiguous()


def check_agreement(reference, other, cases):
    """Largest relative difference of the logits over all cases; the greedy tokens and the router's choices must be the same."""
    worst = 0.0
    for case in cases:
        ids = case["input_ids"] + case["greedy_ids"]
        (logits, scores), (logits_2, scores_2) = reference.run(ids), other.run(ids)
        worst = max(worst, ((logits - logits_2).norm() / logits.norm()).item())
        start = len(case["input_ids"]) - 1
        assert logits_2[start:-1].argmax(dim=-1).tolist() == case["greedy_ids"]
        top_k = len(case["router_choices"][0][0])
        assert torch.equal(scores.topk(top_k).indices, scores_2.topk(top_k).indices)
    assert worst < MAX_DISAGREEMENT, worst
    return worst


@torch.no_grad()
def generate(name, reference_class):
    folder = ROOT / "models" / name
    reference = reference_class(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    top_k = json.loads((folder / "config.json").read_text())["num_experts_per_tok"]
    found = (make_case(reference, tokenizer, top_k, text) for text in TEXTS)
    pairs = list(itertools.islice((pair for pair in found if pair is not None), CASES))
    assert len(pairs) == CASES, f"{name}: only {len(pairs)} texts are clear enough"
    cases = [case for case, _ in pairs]
    header = {
        "model": name,
        "model_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "reference": f"{reference.name}, float32 on the CPU",
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, transformers, tokenizers, safetensors, numpy)},
        },
    }
    if reference_class is not TrainingReference:
        header["training_code_difference"] = check_agreement(reference, TrainingReference(folder), cases)
    out = pathlib.Path(__file__).parent / name
    out.mkdir(exist_ok=True)
    (out / "cases.json").write_text(render(header, cases))
    save_file({f"case_{index}": logits for index, (_, logits) in enumerate(pairs)}, out / "logits.safetensors")
    (out / "logits.safetensors").chmod(0o644)
    print(f"{name}: {json.dumps(header)}, margins {[(c['min_logit_margin'], c['min_router_margin']) for c in cases]}")


def render(header, cases):
    """JSON with one line a field of each case."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in header.items()]
    bodies = []
    for case in cases:
        fields = [f"      {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in case.items()]
        bodies.append("    {\n" + ",\n".join(fields) + "\n    }")
    return "{\n" + "\n".join(lines) + '\n  "cases": [\n' + ",\n".join(bodies) + "\n  ]\n}\n"


if __name__ == "__main__":
    generate("switch-mini", TrainingReference)
    generate("qwen3-moe-mini", TransformersReference)
