"""Model folders in Hugging Face's form: writes one from a model in training, reads one back for evaluation.

    python -m training.export --checkpoints runs/switch-mini/checkpoints --tokenizer data/tokenizer.json --out models/switch-mini
"""

import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file

from training import checkpoint
from training.corpus import EOS_ID
from training.model import ModelConfig, Transformer
from training.tokenizer import EOS

# A transcript: what a base model can continue. A system message is plain text at its head.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] | trim }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] | trim }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] | trim }}"
    "{% else %}{{ raise_exception('The roles are system, user and assistant, not ' + message['role']) }}{% endif %}"
    "{{ '\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def config_json(config):
    """The folder's config.json. Both families share the sizes; each adds what its readers expect."""
    common = {
        "architectures": ["SwitchPregateForCausalLM" if config.is_switch else "Qwen3MoeForCausalLM"],
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "moe_intermediate_size": config.moe_intermediate_size,
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": EOS_ID,
    }
    if config.is_switch:
        return common | {"hidden_act": "relu", "use_pregate": config.use_pregate, "dtype": "bfloat16"}
    return common | {
        "hidden_act": "silu",
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "intermediate_size": config.num_experts_per_tok * config.moe_intermediate_size,  # of dense layers: there are none
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_scaling": None,
        "use_sliding_window": False,
        "sliding_window": None,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.01,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "bfloat16",
    }


def named_weights(model):
    """The model's weights under their Hugging Face names, each a view of the model's own memory."""
    config = model.config
    tensors = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm.weight}
    for index, block in enumerate(model.blocks):
        prefix = f"model.layers.{index}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{name}.weight"] = getattr(block, name).weight
        for name, parameter in block.self_attn.named_parameters():
            tensors[f"{prefix}self_attn.{name}"] = parameter
        if block.router is not None:
            tensors[f"{prefix}mlp.gate.weight"] = block.router.weight
        if block.next_router is not None:
            tensors[f"{prefix}mlp.pregate.weight"] = block.next_router.weight
        stacked = (config.num_experts, config.moe_intermediate_size, config.hidden_size)
        for expert in range(config.num_experts):
            name = f"{prefix}mlp.experts.{expert}."
            tensors[f"{name}up_proj.weight"] = block.experts.up.view(stacked)[expert]
            tensors[f"{name}down_proj.weight"] = block.experts.down.view(stacked)[expert].t()
            if block.experts.gate is not None:
                tensors[f"{name}gate_proj.weight"] = block.experts.gate.view(stacked)[expert]
    return {name: tensor.detach() for name, tensor in tensors.items()}


def write_json(file, value):
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def save_folder(model, tokenizer_file, folder):
    """Writes a complete model folder, but for the model card."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to("cpu", torch.bfloat16).contiguous() for name, tensor in named_weights(model).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    write_json(folder / "config.json", config_json(model.config))
    write_json(
        folder / "generation_config.json", {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "eos_token_id": EOS_ID}
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": model.config.max_position_embeddings,
            "eos_token": EOS,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    shutil.copyfile(tokenizer_file, folder / "tokenizer.json")


def load_folder(folder):
    """The model of a folder, its bfloat16 weights widened to float32, on the CPU."""
    folder = pathlib.Path(folder)
    values = json.loads((folder / "config.json").read_text())
    names = (field for field in ModelConfig.__dataclass_fields__ if field in values)
    model = Transformer(ModelConfig(**{name: values[name] for name in names}))
    tensors = load_file(folder / "model.safetensors")
    for name, weight in named_weights(model).items():
        weight.copy_(tensors.pop(name))
    if tensors:
        raise ValueError(f"{folder}: tensors that the model does not have: {sorted(tensors)[:3]}")
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    state = checkpoint.load(arguments.checkpoints)
    model = Transformer(ModelConfig(**state["model_config"]))
    model.load_state_dict(state["model"])
    save_folder(model, arguments.tokenizer, arguments.out)
    print(f"{arguments.out}: step {state['step']}")


if __name__ == "__main__":
    main()
