"""The same network in PyTorch: DataLoader over scans decoded once, channels-last, autocast for bfloat16.

`--option compiled` passes the network through torch.compile (which needs a C++ compiler).
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.protocol import BATCH, EPSILON, LEARNING_RATE, RHO, Outcome, Task, auc, task
from job.limits import SIDE
from job.settings import Model


def network(given: Task) -> nn.Sequential:
    """The network up to the logit, with the initial weights of the task."""
    shape, layers, channels, side = Model(), [], 3, SIDE
    for filters in shape.filters:
        layers += [nn.Conv2d(channels, filters, shape.kernel_size), nn.ReLU(), nn.MaxPool2d(shape.pool_size)]
        channels, side = filters, (side - shape.kernel_size + 1) // shape.pool_size
    layers += [nn.Flatten(), nn.Linear(channels * side**2, shape.dense), nn.ReLU(), nn.Linear(shape.dense, 1)]
    model = nn.Sequential(*layers)
    weighted = [layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]
    values = given.initial_weights()
    with torch.no_grad():
        for place, layer in enumerate(weighted):
            kernel, bias = values[2 * place], values[2 * place + 1]
            if isinstance(layer, nn.Conv2d):
                kernel = kernel.transpose(3, 2, 0, 1)  # [h, w, in, out] to [out, in, h, w]
            elif place == len(shape.filters):
                # The first dense layer follows a flattening of [h, w, c] in Keras and of [c, h, w] here.
                kernel = kernel.reshape(side, side, channels, -1).transpose(3, 2, 0, 1).reshape(shape.dense, -1)
            else:
                kernel = kernel.T
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
            layer.bias.copy_(torch.from_numpy(bias))
    return model.to(memory_format=torch.channels_last)


def decoded(given: Task, part: str) -> TensorDataset:
    """All scans of a part as uint8 [n, 3, 224, 224], decoded in threads, with labels float32 [n, 1]."""
    paths, labels = given.files(part)

    def load(path: object) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(given.threads) as pool:
        pixels = torch.from_numpy(np.stack(list(pool.map(load, paths))))
    # Kept as [n, h, w, c] in memory, which is what channels-last means.
    return TensorDataset(pixels.permute(0, 3, 1, 2), torch.from_numpy(labels[:, None]))


def main() -> None:
    """Trains, exports, reports."""
    given = task()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    parts = {part: decoded(given, part) for part in ("train", "val", "test")}
    loader = DataLoader(parts["train"], BATCH, shuffle=True)
    model = network(given)
    # torch adds eps outside of the root, Keras inside (and scales alike otherwise): sqrt(v) + sqrt(eps) is as near as
    # torch's options come. It matters only where gradients are around 3e-4 or less.
    optimizer = torch.optim.RMSprop(model.parameters(), LEARNING_RATE, alpha=RHO, eps=EPSILON**0.5, foreach=True)
    loss_of = nn.BCEWithLogitsLoss()
    run = torch.compile(model) if given.option == "compiled" else model
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "mixed_bfloat16")

    def logits(pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.to(torch.float32, memory_format=torch.channels_last).mul_(1 / 255)
        with mixed:
            return run(images).float()

    def score(part: str) -> tuple[float, np.ndarray]:
        model.eval()
        with torch.no_grad():
            held = [(logits(pixels), labels) for pixels, labels in DataLoader(parts[part], BATCH)]
        model.train()
        found, labels = torch.cat([x for x, _ in held]), torch.cat([y for _, y in held])
        return float(loss_of(found, labels)), torch.sigmoid(found)[:, 0].numpy()

    outcome, waits = Outcome(images=len(parts["train"])), []
    for _ in range(given.epochs):
        began, waited, total = time.perf_counter(), 0.0, 0.0
        batches = iter(loader)
        for _ in range(len(loader)):
            asked = time.perf_counter()
            pixels, labels = next(batches)
            waited += time.perf_counter() - asked
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(logits(pixels), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            outcome.step_done()
        outcome.train_seconds.append(time.perf_counter() - began)
        waits.append(waited)
        outcome.loss.append(total / outcome.images)
        outcome.val_loss.append(score("val")[0])
        outcome.epoch_seconds.append(time.perf_counter() - began)
    scored = {part: score(part)[1] for part in ("val", "test")}
    given.export.mkdir(parents=True)
    shape = torch.zeros(2, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(model.eval(), (shape,), dynamic_shapes=({0: batch},)), given.export / "m.pt2")
    outcome.exported = time.time()
    outcome.val_auc, outcome.test_auc = (auc(given.files(part)[1], scored[part]) for part in ("val", "test"))
    later = slice(1 if given.epochs > 1 else 0, None)
    outcome.data_wait_share = sum(waits[later]) / sum(outcome.train_seconds[later])
    outcome.say()


if __name__ == "__main__":
    main()
