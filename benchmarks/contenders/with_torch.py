"""The plain PyTorch script: the quickstart's data loader and training loop."""

from __future__ import annotations

import meter
import nets
import torch
from dataset import Images
from torch import nn
from torch.utils.data import DataLoader


def main() -> None:
    words = meter.words()
    images, labels = meter.load(words.data)
    data = Images(images, labels, words.shift)
    loader = DataLoader(data, batch_size=words.batch, shuffle=True)

    model = nets.build(words.net, images.shape[1], images.shape[2])
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    count = meter.Meter(words.seconds)
    model.train()
    enough = False
    while not enough:
        for batch, (x, y) in enumerate(loader):
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if batch % 100 == 0:
                print(f"loss: {loss.item():>7f}")
            enough = count(len(x))
            if enough:
                break

    parameters = sum(p.numel() for p in model.parameters())
    meter.answer(count.images, count.seconds, parameters, ["torch"])


if __name__ == "__main__":
    main()
