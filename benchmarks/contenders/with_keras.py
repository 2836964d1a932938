"""Keras 3 with the JAX back end: a functional model and `fit` on NumPy arrays.

`fit` gives its numbers at the end of epochs, so whole calls of it are timed: one that compiles,
one that tells the pace, and then the one that counts, as long as the meter wants.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "jax"

import time

import keras
import meter
import numpy as np
from keras import layers

WARM_STEPS = 40


def lenet5(x: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Conv2D(6, 5, padding="same" if x.shape[1] == 28 else "valid", activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(16, 5, activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(120, activation="relu")(x)
    return layers.Dense(84, activation="relu")(x)


def resnet20(x: keras.KerasTensor) -> keras.KerasTensor:
    x = convolution(x, 16, 1)
    x = layers.ReLU()(x)
    for maps, first in ((16, 1), (32, 2), (64, 2)):
        for stride in (first, 1, 1):
            x = block(x, maps, stride)
    return layers.GlobalAveragePooling2D()(x)


def block(x: keras.KerasTensor, maps: int, stride: int) -> keras.KerasTensor:
    out = layers.ReLU()(convolution(x, maps, stride))
    out = convolution(out, maps, 1)
    grow = maps - x.shape[-1]
    if grow:
        x = keras.ops.pad(x[:, ::stride, ::stride, :], ((0, 0), (0, 0), (0, 0), (0, grow)))
    return layers.ReLU()(layers.Add()([out, x]))


def convolution(x: keras.KerasTensor, maps: int, stride: int) -> keras.KerasTensor:
    x = layers.Conv2D(maps, 3, strides=stride, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def main() -> None:
    words = meter.words()
    images, y = meter.load(words.data)
    x = images.transpose(0, 2, 3, 1).astype("float32") / 255
    x = (x - x[:2000].mean((0, 1, 2))) / x[:2000].std((0, 1, 2))

    inputs = keras.Input(shape=x.shape[1:])
    features = lenet5(inputs) if words.net == "lenet5" else resnet20(inputs)
    model = keras.Model(inputs, layers.Dense(10)(features))
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate=0.01, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    def seconds(count: int, epochs: int = 1) -> float:
        began = time.perf_counter()
        model.fit(x[:count], y[:count], batch_size=words.batch, epochs=epochs)
        return time.perf_counter() - began

    some = words.batch * WARM_STEPS
    seconds(some)
    wanted = some * words.seconds / seconds(some)
    epochs = max(1, round(wanted / len(x)))
    count = min(len(x), max(1, round(wanted / words.batch)) * words.batch)
    count -= count % words.batch  # another batch size would be compiled anew
    took = seconds(count, epochs)

    parameters = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    meter.answer(count * epochs, took, parameters, ["keras", "jax"])


if __name__ == "__main__":
    main()
