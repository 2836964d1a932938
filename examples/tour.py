# %% [markdown]
# # hubel in five minutes
# Run this file as it is (`python examples/tour.py`), or cell by cell where `# %%` is known.

# %% Data: a name, a folder, a file, or two arrays
import hubel

data = hubel.load_data("sample")
print(len(data), "images of", len(data.classes), "classes from", data.origin)

# %% One image and its label
sample = data[0]
print(sample.id, sample.image.shape, sample.image.dtype, "is a", data.classes[sample.target])

# %% A model is a plain nn.Module
net = hubel.build("lenet5", classes=10, channels=1)
print(net)
print(sum(p.numel() for p in net.parameters()), "parameters")

# %% Train it. What is not said comes from the model's recipe
result = hubel.train("lenet5", data, epochs=3, seed=1)
for part, scores in result.metrics.items():
    print(f"{part:5} accuracy {scores['accuracy']:.3f}")
print("report:", result.report)

# %% Any module of your own trains the same way
from torch import nn  # noqa: E402

mine = nn.Sequential(
    nn.Conv2d(1, 8, 5),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(4),
    nn.Flatten(),
    nn.Linear(128, 10),
)
own = hubel.train(mine, data, epochs=1, optimiser={"name": "adam", "lr": 0.003})
print("my own net:", own.metrics["test"]["accuracy"])

# %% Later, or elsewhere: the run folder is all it takes
run = hubel.load_run(result.folder)
print(run.evaluate()["test"])

# %% Predict from files
from pathlib import Path  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402

from PIL import Image  # noqa: E402

with TemporaryDirectory() as folder:
    file = Path(folder) / "something.png"
    Image.fromarray(sample.image[0]).save(file)
    (answer,) = run.predict([file])
    print(f"{answer.file}: {answer.label} ({answer.confidence:.0%})")
