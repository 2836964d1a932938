"""PyTorch as its tutorials write it: Dataset, DataLoader, eager, fp32."""

import json
import sys
import time

import torch
from nets import BATCH, images, torch_net
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    def __init__(self, model):
        self.images, self.labels = images(model)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return torch.from_numpy(self.images[row]).float() / 255, int(self.labels[row])


def main(model, seconds):
    loader = DataLoader(Images(model), batch_size=BATCH[model], shuffle=True, drop_last=True)
    net, loss_fn = torch_net(model), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    seen, start = 0, None
    while True:
        for step, (x, y) in enumerate(loader):
            loss = loss_fn(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(x)
            if start is None and step == 10:
                seen, start = 0, time.perf_counter()
            if start is not None and time.perf_counter() - start > seconds:
                return seen / (time.perf_counter() - start), sum(
                    p.numel() for p in net.parameters()
                )


if __name__ == "__main__":
    rate, parameters = main(sys.argv[1], float(sys.argv[2]))
    print(json.dumps({"images_per_second": rate, "parameters": parameters}))
