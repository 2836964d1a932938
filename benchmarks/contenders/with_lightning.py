"""PyTorch Lightning: a LightningModule, a DataLoader, a Trainer with its defaults."""

from __future__ import annotations

from typing import Any

import lightning as L
import meter
import nets
import torch
from dataset import Images
from torch import Tensor
from torch.utils.data import DataLoader


class Classifier(L.LightningModule):
    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Counting(L.Callback):
    """Tells the meter of every step, and ends the training when it has enough."""

    def __init__(self, count: meter.Meter) -> None:
        self.count = count
        self.enough = False

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.enough = self.enough or self.count(len(batch[0]))
        trainer.should_stop = self.enough


def main() -> None:
    words = meter.words()
    images, labels = meter.load(words.data)
    data = Images(images, labels, words.shift)
    loader = DataLoader(data, batch_size=words.batch, shuffle=True)
    model = Classifier(nets.build(words.net, images.shape[1], images.shape[2]))
    count = meter.Meter(words.seconds)
    trainer = L.Trainer(max_epochs=1000, callbacks=[Counting(count)])
    trainer.fit(model, loader)
    parameters = sum(p.numel() for p in model.parameters())
    meter.answer(count.images, count.seconds, parameters, ["lightning", "torch"])


if __name__ == "__main__":
    main()
