"""Writes a folder's model card from what its run left.

    python -m training.card --model models/switch-mini --run training/results/switch-mini \\
        --control training/results/switch-mini-conventional

A run's folder holds train.py's summary.json and log.jsonl, and evaluate.py's figures as valid.json.
"""

import argparse
import json
import pathlib

import torch
from tokenizers import Tokenizer

from training.corpus import EOS_ID
from training.export import load_folder

PROMPTS = (
    "The sea is",
    "To list the files of a directory, use",
    "In those days there was a king who",
    "User: What is a compiler?\n\nAssistant:",
)
XZ_BITS_PER_BYTE = 2.33  # `xz -9e` on the same file


@torch.no_grad()
def sample(model, tokenizer, prompt, num_tokens, seed, temperature=0.8, top_p=0.95):
    """`num_tokens` tokens after the prompt, fewer at an EOS: nucleus sampling as in the folder's generation_config.json."""
    generator = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    start = len(ids)
    while len(ids) - start < num_tokens:
        hidden, _ = model(torch.tensor([ids]))
        probs, order = (model.logits(hidden[0, -1]) / temperature).softmax(dim=-1).sort(descending=True)
        kept = probs.cumsum(dim=0) - probs < top_p
        choice = order[torch.multinomial(probs * kept, 1, generator=generator)].item()
        if choice == EOS_ID:
            break
        ids.append(choice)
    return tokenizer.decode(ids[start:])


def parameter_counts(model):
    """All parameters, and those that one token uses."""
    config = model.config
    total = sum(parameter.numel() for parameter in model.parameters())
    experts = sum(parameter.numel() for block in model.blocks for parameter in block.experts.parameters())
    return total, total - experts + experts * config.num_experts_per_tok // config.num_experts


def load_run(folder):
    """summary.json with the figures of valid.json beside it and the last line of log.jsonl as `last`."""
    run = json.loads((folder / "summary.json").read_text())
    run["valid"] = json.loads((folder / "valid.json").read_text())
    run["last"] = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    return run


def load_table(load):
    """Each expert's share of a layer's choices, in percent."""
    head = "| layer | " + " | ".join(str(expert) for expert in range(len(load[0]))) + " |"
    rows = [f"| {layer} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |" for layer, shares in enumerate(load)]
    return "\n".join([head, "|---|" + "---:|" * len(load[0]), *rows])


def control_section(run, control):
    change = run["valid"]["bits_per_byte"] / control["valid"]["bits_per_byte"] - 1
    return f"""
## The price of pre-gating

The control is the same model with conventional gates (`"use_pregate": false`: block L is routed by what its own experts read), with
the same data in the same order, the same seed, schedule and {run["training"]["steps"]:,} steps. It is not shipped.

| | parameters | training loss | bits per byte |
|---|---:|---:|---:|
| pre-gated (this model) | {run["parameters"]:,} | {run["loss"]:.4f} | {run["valid"]["bits_per_byte"]:.4f} |
| conventional gates | {control["parameters"]:,} | {control["loss"]:.4f} | {control["valid"]["bits_per_byte"]:.4f} |

Knowing the routing one layer ahead changes the bits per byte by {100 * change:+.2f} %. One seed each: a difference this small may be the
seed's, so the finding is that pre-gating costs nothing measurable at this size, not that it helps.
"""


def card(name, model, tokenizer, run, control):
    config, training, valid = model.config, run["training"], run["valid"]
    total, active = parameter_counts(model)
    if config.is_switch:
        family = "top-1 Switch feed-forward layers, ReLU experts, routed one layer ahead by trained pre-gates"
        format_line = "The family and the tensor names are described in [docs/switch-pregate.md](../../docs/switch-pregate.md)."
    else:
        family = "grouped-query attention, QK-norm, SwiGLU experts, every layer sparse"
        format_line = (
            "Hugging Face `transformers` (4.57 and 5.17 were tried) loads the folder unchanged as `Qwen3MoeForCausalLM`."
            " The architecture is Qwen3-MoE's; the weights are our own, trained from nothing."
        )
    samples = []
    for seed, prompt in enumerate(PROMPTS):
        text = prompt + "⟶" + sample(model, tokenizer, prompt, 80, seed)
        samples.append("```text\n" + text.rstrip() + "\n```")
    epochs = run["trained_tokens"] / run["corpus_tokens"]
    return f"""# {name}

A small mixture-of-experts language model that Pregate trained for its quick start, its tests and its documentation: {family}.
{format_line}

| | |
|---|---|
| parameters | {total:,}, of which a token uses {active:,} |
| layers, hidden size | {config.num_hidden_layers}, {config.hidden_size} |
| attention | {config.num_attention_heads} query heads, {config.num_key_value_heads} key-value heads of {config.head_dim} |
| experts | {config.num_experts} a layer, {config.num_experts_per_tok} a token, inner width {config.moe_intermediate_size} |
| vocabulary | {config.vocab_size} (byte-level BPE; `<\\|endoftext\\|>`, id 0, ends a document and stands before it) |
| context | {config.max_position_embeddings} tokens |
| weights | bfloat16, embedding and head tied |
| bits per byte, validation text | **{valid["bits_per_byte"]:.4f}** ({valid["nats_per_token"]:.4f} nats a token; `xz -9e`: {XZ_BITS_PER_BYTE}) |

## Data and licences

Trained on 147 MB of English text: documentation, dictionaries, books and game text from packages of Debian 12 main, all under free
licences. [training/SOURCES.md](../../training/SOURCES.md) lists each package with its version, licence and share. The model may reproduce
phrases of these texts; their licences (GPL, GFDL, CC-BY-SA, Apache-2.0, BSD, MIT, public domain and others) are those of the listed packages.

## Training

{run["trained_tokens"] / 1e6:.0f} million tokens ({epochs:.1f} passes over {run["corpus_tokens"] / 1e6:.1f} million) in {training["steps"]:,} steps of {training["batch_size"]} windows of \
{config.max_position_embeddings} tokens, in {run["seconds"]:.0f} s on one {run["device"]}, start and compilation included.
AdamW (β {training["beta1"]}, {training["beta2"]}; weight decay {training["weight_decay"]}; gradients clipped at {training["gradient_clip"]}), learning rate \
{training["learning_rate"]} after {training["warmup_steps"]} warm-up steps, down a cosine to {training["final_learning_rate"]}; bfloat16 products, float32 weights;
load-balancing loss × {training["balance_loss"]} (Switch Transformers, eq. 4-6), router z-loss × {training["router_z_loss"]} (ST-MoE, eq. 5); seed {training["seed"]}.
The last steps' training loss was {run["loss"]:.4f} nats a token, balance loss {run["last"]["balance_loss"]:.3f} (1 is even), router entropy \
{run["last"]["router_entropy"]:.2f} nats. [training/README.md](../../training/README.md) has the commands.
{control_section(run, control) if control else ""}
## Expert load

Share of the choices that each expert got on the validation text, in percent; even would be {100 / config.num_experts:.2f}.

{load_table(valid["expert_load"])}

## Samples

Prompt, an arrow, and up to 80 sampled tokens (temperature 0.8, top_p 0.95; the first try of seeds 0 to {len(PROMPTS) - 1}):

{chr(10).join(samples)}

## Limits

It writes recognisable English in the manner of its sources and knows almost nothing: what it states is invented, it loses its thread within a
sentence or two, and with greedy decoding it repeats itself. It was not tuned to follow instructions; the chat template only sets a transcript
for it to go on with, and it will go on with both sides. Nothing was filtered but what the sources' editors filtered. English only.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--control", type=pathlib.Path)
    arguments = parser.parse_args()
    model = load_folder(arguments.model)
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    control = load_run(arguments.control) if arguments.control else None
    text = card(arguments.model.name, model, tokenizer, load_run(arguments.run), control)
    (arguments.model / "README.md").write_text(text)


if __name__ == "__main__":
    main()
