"""Checkpoints in pieces of at most 15 MiB, so that each can travel where file sizes are limited."""

import hashlib
import io
import json
import pathlib
import shutil

import torch

PIECE_BYTES = 15 << 20


def save(folder, state):
    """Writes `state` (with its "step") to a new folder below `folder`, then removes the older ones."""
    folder = pathlib.Path(folder)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    target = folder / f"step-{state['step']:06d}"
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    pieces = range(0, len(data), PIECE_BYTES)
    for number, start in enumerate(pieces):
        (partial / f"piece-{number:02d}").write_bytes(data[start : start + PIECE_BYTES])
    manifest = {"step": state["step"], "pieces": len(pieces), "sha256": hashlib.sha256(data).hexdigest()}
    (partial / "manifest.json").write_text(json.dumps(manifest) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    for other in folder.glob("step-*"):
        if other != target:
            shutil.rmtree(other)


def load(folder):
    """The newest state below `folder`, or None if there is none."""
    found = sorted(pathlib.Path(folder).glob("step-*/manifest.json"))
    if not found:
        return None
    manifest = json.loads(found[-1].read_text())
    data = b"".join((found[-1].parent / f"piece-{number:02d}").read_bytes() for number in range(manifest["pieces"]))
    if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
        raise ValueError(f"{found[-1].parent}: the pieces do not add up to what was saved")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
