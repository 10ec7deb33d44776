"""python -m pytest training: seconds on a CPU, with a tiny model and a tiny corpus."""

import dataclasses

import numpy as np
import pytest
import torch

from training import checkpoint
from training.corpus import Batches, read_documents
from training.evaluate import evaluate, windows
from training.export import load_folder, save_folder
from training.model import ModelConfig, Transformer, losses
from training.tokenizer import train as train_tokenizer
from training.train import Trainer, TrainingConfig, train

SWITCH = ModelConfig("switch_pregate", 300, 32, 3, 2, 2, 16, 24, 4, 1, 16, 10000.0, 1e-6, use_pregate=True)
QWEN = ModelConfig("qwen3_moe", 300, 32, 2, 2, 1, 16, 8, 6, 3, 16, 10000.0, 1e-6)
TRAINING = TrainingConfig(7, 6, 2, 1e-2, 1e-4, 2, 0.1, 0.9, 0.95, 1.0, 0.01, 0.001)
TEXT = "The cat sat on the mat.\n\x1e\nA line with \x1e inside stays.\n\x1e\n"


@pytest.fixture
def text_file(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return file


def test_only_a_line_of_its_own_ends_a_document(text_file):
    assert read_documents(text_file) == ["The cat sat on the mat.\n", "A line with \x1e inside stays.\n"]


@pytest.mark.parametrize("length", [2, 3, 15, 16, 17, 18, 24, 25, 26, 100])
def test_windows_score_each_token_once(length):
    ids = list(range(length))
    scored = []
    for first, inputs, start in windows(ids, 16):
        assert 1 <= inputs <= 16
        scored += range(start, first + inputs + 1)
    assert scored == ids[1:]


def test_batches_visit_every_window_once_an_epoch():
    tokens = np.arange(16 * 9 + 1, dtype=np.uint16)
    batches = Batches(tokens, 16, 2, seed=3, device="cpu")
    rows = torch.cat([batches(step) for step in range(batches.per_epoch)])
    assert len(set(rows[:, 0].tolist())) == len(rows) == 8
    assert torch.equal(rows, rows[:, :1] + torch.arange(17))
    assert torch.equal(batches(5), Batches(tokens, 16, 2, seed=3, device="cpu")(5))


def test_a_pregate_routes_the_next_block():
    model = Transformer(SWITCH)
    model.init_weights(1)
    ids = torch.arange(10)[None]
    _, before = model(ids)
    with torch.no_grad():
        model.blocks[1].next_router.weight.neg_()
    _, after = model(ids)
    assert torch.equal(before[1].choices, after[1].choices)
    assert torch.equal(before[2].logits, -after[2].logits)


def test_balanced_routing_costs_one():
    model = Transformer(QWEN)
    model.init_weights(1)
    with torch.no_grad():
        for block in model.blocks:
            block.router.weight.zero_()  # equal scores: the lower experts win, and the mean probability is even
    found = losses(model, torch.arange(17)[None])
    assert found.balance.item() == pytest.approx(1.0)
    assert found.load.tolist() == [pytest.approx([1 / 3] * 3 + [0] * 3)] * 2
    assert found.router_z.item() == pytest.approx(np.log(6) ** 2)
    assert found.router_entropy.item() == pytest.approx(np.log(6))


def run(out, steps_before_interruption=None):
    tokens = np.random.default_rng(0).integers(0, 300, 500).astype(np.uint16)
    out.mkdir()
    if steps_before_interruption:
        trainer = Trainer(SWITCH, TRAINING, "cpu")
        batches = Batches(tokens, 16, 2, TRAINING.seed, "cpu")
        for step in range(steps_before_interruption):
            trainer.step(step, batches(step))
        checkpoint.save(out / "checkpoints", trainer.state(steps_before_interruption))
    trainer = Trainer(SWITCH, TRAINING, "cpu")
    train(trainer, Batches(tokens, 16, 2, TRAINING.seed, "cpu"), out, out / "checkpoints", checkpoint_every=100)
    return trainer.model.state_dict()


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    whole = run(tmp_path / "whole")
    resumed = run(tmp_path / "resumed", steps_before_interruption=4)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_another_configuration_is_refused():
    state = Trainer(SWITCH, TRAINING, "cpu").state(1)
    with pytest.raises(ValueError, match="training_config"):
        Trainer(SWITCH, dataclasses.replace(TRAINING, seed=8), "cpu").restore(state)


def test_a_damaged_piece_is_found(tmp_path):
    checkpoint.save(tmp_path, {"step": 3, "weights": torch.ones(1000)})
    piece = tmp_path / "step-000003" / "piece-00"
    piece.write_bytes(piece.read_bytes()[:-1])
    with pytest.raises(ValueError, match="pieces"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("config", [SWITCH, dataclasses.replace(SWITCH, use_pregate=False), QWEN])
def test_a_folder_holds_the_model(config, tmp_path, text_file):
    model = Transformer(config)
    model.init_weights(1)
    model.bfloat16().float()
    tokenizer = train_tokenizer([TEXT], 300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    save_folder(model, tmp_path / "tokenizer.json", tmp_path / "model")
    loaded = load_folder(tmp_path / "model")
    ids = torch.arange(12)[None]
    assert torch.equal(loaded(ids)[0], model(ids)[0])
    found = evaluate(loaded, tokenizer, text_file, batch_size=2)
    assert found["bytes"] == len(TEXT)
    assert found["bits_per_byte"] == pytest.approx(found["nats_per_token"] * found["tokens"] / np.log(2) / len(TEXT))
