"""Trains one model and writes its folder.

    python -m training.train --config training/configs/switch-mini.json --corpus data/train.txt.zst \\
        --tokenizer data/tokenizer.json --out runs/switch-mini

OUT gets log.jsonl (losses, speed and routing statistics), summary.json, checkpoints/ and, at the end, model/. Run again after an
interruption, the same command goes on from the newest checkpoint.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import time

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts: cuBLAS is then repeatable

import torch

from training import checkpoint
from training.corpus import Batches, token_stream
from training.export import save_folder
from training.model import ModelConfig, Transformer, losses

LOG_EVERY = 50


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    seed: int
    steps: int
    batch_size: int  # windows of max_position_embeddings tokens
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    weight_decay: float
    beta1: float
    beta2: float
    gradient_clip: float
    balance_loss: float
    router_z_loss: float

    def learning_rate_at(self, step):
        """Linear warm-up, then half a cosine down to the final rate."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        fall = (1 + math.cos(math.pi * progress)) / 2
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * fall


class Trainer:
    """A model with its optimizer. State moves only in `step`; `state` and `restore` carry it across interruptions."""

    def __init__(self, model_config, config, device):
        self.config = config
        self._device = device
        self.model = Transformer(model_config)
        self.model.init_weights(config.seed)
        self.model.to(device)
        matrices = [parameter for parameter in self.model.parameters() if parameter.dim() > 1]
        vectors = [parameter for parameter in self.model.parameters() if parameter.dim() == 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            betas=(config.beta1, config.beta2),
            fused=device == "cuda",
        )
        self._losses = torch.compile(losses) if device == "cuda" else losses

    def step(self, index, batch):
        """One optimizer step. Returns the batch's losses and the gradient's norm, on the device."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(index)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            found = self._losses(self.model, batch)
        total = found.cross_entropy + self.config.balance_loss * found.balance + self.config.router_z_loss * found.router_z
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self._optimizer.step()
        return found, norm

    def state(self, step):
        return {
            "step": step,
            "model_config": dataclasses.asdict(self.model.config),
            "training_config": dataclasses.asdict(self.config),
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, state):
        for name, own in (("model_config", self.model.config), ("training_config", self.config)):
            if state[name] != dataclasses.asdict(own):
                raise ValueError(f"the checkpoint's {name} is another: {state[name]}")
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])


class Log:
    """Averages of the losses and the routing since the last line, to log.jsonl and as a progress line on stdout."""

    def __init__(self, file, config, tokens_per_step, resumed_step):
        kept = file.read_text().splitlines() if file.exists() else []
        kept = [line for line in kept if json.loads(line)["step"] <= resumed_step]
        file.write_text("".join(line + "\n" for line in kept))
        self._file = file
        self._config = config
        self._tokens_per_step = tokens_per_step
        self._since = time.monotonic()
        self._clear()

    def _clear(self):
        self._count, self._scalars, self._load = 0, 0, 0

    def add(self, found, norm):
        scalars = torch.stack([found.cross_entropy, found.balance, found.router_z, found.router_entropy, norm])
        self._scalars = self._scalars + scalars.detach()
        self._load = self._load + found.load
        self._count += 1

    def write(self, step):
        """`step` steps are done. Waits for the device."""
        loss, balance, router_z, entropy, norm = (self._scalars / self._count).tolist()
        load = (self._load / self._count).tolist()
        now = time.monotonic()
        speed = self._count * self._tokens_per_step / (now - self._since)
        eta = (self._config.steps - step) * self._tokens_per_step / speed
        line = {
            "step": step,
            "loss": round(loss, 4),
            "balance_loss": round(balance, 4),
            "router_z_loss": round(router_z, 4),
            "router_entropy": round(entropy, 4),
            "gradient_norm": round(norm, 3),
            "learning_rate": self._config.learning_rate_at(step - 1),
            "tokens_per_second": round(speed),
            "expert_load": [[round(share, 4) for share in layer] for layer in load],
        }
        with self._file.open("a") as out:
            out.write(json.dumps(line) + "\n")
        shares = [share * len(layer) for layer in load for share in layer]
        print(
            f"step {step}/{self._config.steps}  loss {loss:.4f}  balance {balance:.3f}  z {router_z:.2f}  entropy {entropy:.2f}  "
            f"load {min(shares):.2f}-{max(shares):.2f}  norm {norm:.2f}  {speed / 1e6:.3f}M tok/s  eta {eta:.0f} s",
            flush=True,
        )
        self._since = now
        self._clear()
        return loss


def train(trainer, batches, out, checkpoints, checkpoint_every):
    """Runs the steps that are left. Returns the last log line's loss."""
    config = trainer.config
    state = checkpoint.load(checkpoints)
    first = 0
    if state is not None:
        trainer.restore(state)
        first = state["step"]
        print(f"resumed after step {first}")
    log = Log(out / "log.jsonl", config, config.batch_size * trainer.model.config.max_position_embeddings, first)
    loss = math.nan
    for index in range(first, config.steps):
        log.add(*trainer.step(index, batches(index)))
        done = index + 1
        if done % LOG_EVERY == 0 or done == config.steps:
            loss = log.write(done)
            if not math.isfinite(loss):
                raise ValueError(f"the loss is {loss} at step {done}")
        if done % checkpoint_every == 0 and done < config.steps:
            checkpoint.save(checkpoints, trainer.state(done))
    return loss


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=pathlib.Path, required=True)
    parser.add_argument("--corpus", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--cache", type=pathlib.Path, default="data", help="folder for the tokenized corpus")
    parser.add_argument("--checkpoints", type=pathlib.Path, help="folder, default OUT/checkpoints")
    parser.add_argument("--checkpoint-every", type=int, default=2000, metavar="STEPS")
    parser.add_argument("--steps", type=int, help="instead of the configuration's")
    parser.add_argument("--batch-size", type=int, help="instead of the configuration's")
    parser.add_argument("--learning-rate", type=float, help="instead of the configuration's")
    arguments = parser.parse_args()
    started = time.monotonic()

    values = json.loads(arguments.config.read_text())
    model_config = ModelConfig(**values["model"])
    overrides = {name: getattr(arguments, name) for name in ("steps", "batch_size", "learning_rate")}
    config = TrainingConfig(**values["training"] | {name: value for name, value in overrides.items() if value is not None})
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    tokens = token_stream(arguments.corpus, arguments.tokenizer, arguments.cache)
    batches = Batches(tokens, model_config.max_position_embeddings, config.batch_size, config.seed, device)
    trainer = Trainer(model_config, config, device)
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    print(f"{parameters} parameters, {len(tokens)} tokens, {batches.per_epoch} steps an epoch, ready in {time.monotonic() - started:.0f} s")

    arguments.out.mkdir(parents=True, exist_ok=True)
    checkpoints = arguments.checkpoints or arguments.out / "checkpoints"
    loss = train(trainer, batches, arguments.out, checkpoints, arguments.checkpoint_every)
    save_folder(trainer.model, arguments.tokenizer, arguments.out / "model")
    summary = {
        "parameters": parameters,
        "corpus_tokens": len(tokens),
        "trained_tokens": config.steps * config.batch_size * model_config.max_position_embeddings,
        "training": dataclasses.asdict(config),
        "loss": loss,
        "seconds": round(time.monotonic() - started, 1),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    (arguments.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"done in {summary['seconds']} s")


if __name__ == "__main__":
    main()
