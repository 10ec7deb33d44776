"""The decoder-only MoE language model, for both families: `switch_pregate` (docs/switch-pregate.md) and `qwen3_moe`.

Every expert is computed for every token and the outputs are weighted by the routing, zeros included: at these sizes two plain
matrix products beat any dispatch. Shapes: B sequences of T tokens, H hidden, E experts of inner width I.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The sizes of a model, under the names of its Hugging Face config.json."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    moe_intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    use_pregate: bool = False  # switch_pregate: block L >= 1 is routed by what the experts of L - 1 read

    def __post_init__(self):
        if self.model_type not in ("switch_pregate", "qwen3_moe"):
            raise ValueError(f"unknown model_type {self.model_type!r}")
        if self.is_switch and self.num_experts_per_tok != 1:
            raise ValueError("switch_pregate routes each token to one expert")
        if self.use_pregate and not self.is_switch:
            raise ValueError("only switch_pregate has pre-gates")

    @property
    def is_switch(self):
        """Switch: ReLU experts and the router's probability as it is. Else Qwen3: SwiGLU experts, renormalized weights, QK-norm."""
        return self.model_type == "switch_pregate"


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._eps = eps

    def forward(self, x):
        x = x.float()
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self._eps))


def rope_table(config, length, device):
    """cos and sin [length, head_dim], float32, in Hugging Face's half-split form."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] / config.rope_theta**exponent
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """RoPE of x [B, heads, T, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self._head_dim = config.head_dim
        self._queries_per_key = config.num_attention_heads // config.num_key_value_heads
        q_size = config.num_attention_heads * config.head_dim
        kv_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, q_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(q_size, config.hidden_size, bias=False)
        if not config.is_switch:
            self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x, rope):
        batch, length, _ = x.shape
        q, k, v = (
            projection(x).view(batch, length, -1, self._head_dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = (rotate(head, *rope).type_as(v) for head in (q, k))
        if self._queries_per_key > 1:
            k, v = (head.repeat_interleave(self._queries_per_key, dim=1) for head in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


@dataclasses.dataclass
class Routing:
    """One layer's routing: float32 logits and combine weights [B, T, E] (0 for what is not selected), choices [B, T, k] best first."""

    logits: torch.Tensor
    weights: torch.Tensor
    choices: torch.Tensor


class Router(nn.Module):
    """Softmax over all experts, then the top k; among equal scores the lower expert wins."""

    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self._top_k = config.num_experts_per_tok
        self._renormalize = not config.is_switch

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.weight.float())
        probs = logits.softmax(dim=-1)
        ids = torch.arange(probs.shape[-1], device=x.device)
        remaining, choices = probs, []
        for _ in range(self._top_k):
            choices.append(remaining.argmax(dim=-1, keepdim=True))
            remaining = torch.where(ids == choices[-1], -1.0, remaining)
        weights = torch.where(remaining < 0, probs, 0.0)
        if self._renormalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return Routing(logits, weights, torch.cat(choices, dim=-1))


class Experts(nn.Module):
    """All experts of a layer, stacked: up (and SwiGLU's gate) [E * I, H], down [E * I, H] (an expert's down_proj, transposed)."""

    def __init__(self, config):
        super().__init__()
        self._num_experts = config.num_experts
        size = (config.num_experts * config.moe_intermediate_size, config.hidden_size)
        self.up = nn.Parameter(torch.empty(size))
        self.gate = None if config.is_switch else nn.Parameter(torch.empty(size))
        self.down = nn.Parameter(torch.empty(size))

    def forward(self, x, weights):
        up = F.linear(x, self.up)
        inner = F.relu(up) if self.gate is None else F.silu(F.linear(x, self.gate)) * up
        inner = inner.unflatten(-1, (self._num_experts, -1)) * weights.type_as(inner).unsqueeze(-1)
        return F.linear(inner.flatten(-2), self.down.t())


class Block(nn.Module):
    """One block. `router` routes it; `next_router` (a pre-gate) routes the next one."""

    def __init__(self, config, index):
        super().__init__()
        pregated = config.use_pregate
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.router = Router(config) if index == 0 or not pregated else None
        self.next_router = Router(config) if pregated and index + 1 < config.num_hidden_layers else None
        self.experts = Experts(config)

    def forward(self, h, rope, routing):
        """h [B, T, H] and this block's routing (None: its own router decides) to the new h, the routing used, the next block's."""
        a = h + self.self_attn(self.input_layernorm(h), rope)
        x = self.post_attention_layernorm(a)
        if self.router is not None:
            routing = self.router(x)
        following = None if self.next_router is None else self.next_router(x)
        return a + self.experts(x, routing.weights), routing, following


class Transformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)  # tied: also the head
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def init_weights(self, seed):
        """Fan-in scaled normal weights; what writes to the residual stream is scaled down by the number of such writes."""
        generator = torch.Generator().manual_seed(seed)
        residual = 1 / math.sqrt(2 * self.config.num_hidden_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                continue
            if name.startswith("embedding"):
                std = 0.02
            elif name.endswith("experts.down"):
                std = residual / math.sqrt(self.config.moe_intermediate_size)
            else:
                std = (residual if "o_proj" in name else 1.0) / math.sqrt(parameter.shape[1])
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)

    def forward(self, ids):
        """ids [B, T] to the final hidden states [B, T, H] and each layer's Routing."""
        h = self.embedding(ids)
        rope = rope_table(self.config, ids.shape[1], ids.device)
        routings, following = [], None
        for block in self.blocks:
            h, routing, following = block(h, rope, following)
            routings.append(routing)
        return self.norm(h), routings

    def logits(self, hidden):
        """The next token's logits [..., vocab_size] after each hidden state [..., H]."""
        return F.linear(hidden, self.embedding.weight)


@dataclasses.dataclass
class Losses:
    """Scalars, averaged over tokens and layers, and the share of choices that each expert got, [layers, E]."""

    cross_entropy: torch.Tensor  # nats a token
    balance: torch.Tensor  # Switch Transformers, eq. 4-6, without its factor: 1 when balanced
    router_z: torch.Tensor  # ST-MoE, eq. 5
    load: torch.Tensor
    router_entropy: torch.Tensor  # nats


def losses(model, batch):
    """The losses on a batch [B, T + 1]."""
    hidden, routings = model(batch[:, :-1])
    logits = model.logits(hidden).float()
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    balance, router_z, load, entropy = [], [], [], []
    for routing in routings:
        log_z = routing.logits.logsumexp(dim=-1)
        log_probs = routing.logits - log_z.unsqueeze(-1)
        probs = log_probs.exp()
        chosen = (routing.weights > 0).float().mean(dim=(0, 1)) / model.config.num_experts_per_tok
        balance.append(model.config.num_experts * (chosen * probs.mean(dim=(0, 1))).sum())
        router_z.append(log_z.square().mean())
        entropy.append(-(probs * log_probs).sum(dim=-1).mean())
        load.append(chosen)
    return Losses(
        cross_entropy,
        torch.stack(balance).mean(),
        torch.stack(router_z).mean(),
        torch.stack(load).detach(),
        torch.stack(entropy).mean().detach(),
    )
