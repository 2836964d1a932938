"""Labels for pixels on real images: cells and membranes (ISBI 2012), streets (CamVid).

  membranes   `unet` as printed on 24 slices, judged on the last 6, with the border weights and
              without: pixel error, IoU, Rand.
  street      FCN-32s, 16s and 8s on one small body, several seeds; the unpooling net, U-Net,
              DeepLab before and after the fully connected CRF: mean IoU of 11 classes.
  best        U-Net at full size, the rare classes weighing more: the best mean IoU within an hour.
  sliding     one classifier for every window, by windows and as a fully convolutional net: equal
              labels, and the ratio of their times.
  crf         seconds of the CRF on photos of 481 x 321.

A training that was stopped goes on; one that is finished is only scored.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import hubel
from hubel.data.augment import Augment
from hubel.data.decode import decode
from hubel.data.masks.open import open_masks
from hubel.data.masks.record import MaskSource
from hubel.errors import HubelError
from hubel.loaded import LoadedRun
from hubel.models.crf import DenseCRF
from hubel.models.names import build
from hubel.runs.run import Run
from hubel.tasks.segmentation.membranes import pair_sums, rand
from hubel.tasks.segmentation.overlay import difference, overlay

CAMVID = (
    "sky 128 128 128", "building 128 0 0", "pole 192 192 128", "road 128 64 128",
    "pavement 60 40 222", "tree 128 128 0", "sign 192 128 128", "fence 64 64 128", "car 64 0 128",
    "pedestrian 64 64 0", "bicyclist 0 128 192", "void 0 0 0 ignore",
)  # fmt: skip
MEMBRANES = ("membrane 30 30 30", "cell 230 200 120")
HELD_OUT = 6  # of ISBI's 30 slices, the last: neighbours look alike
BODY = "efficientnet_lite0"
STREET = {"size": (180, 240), "fit": "stretch", "batch": 8, "epochs": 15}
SETTINGS = [
    f"crf:w1={w1},alpha={alpha},beta={beta},gamma=1"
    for w1 in (2, 4)
    for alpha, beta in ((20, 8), (40, 5), (67, 3))
]


def main(argv: Sequence[str] | None = None) -> None:
    """One of the five."""
    words = _words(argv)
    words.runs.mkdir(parents=True, exist_ok=True)
    WHAT[words.what](words)


# Cells ------------------------------------------------------------------------------------------


def membranes(words: argparse.Namespace) -> None:
    """`unet` with the border weights and without."""
    data = _slices(words.data / "isbi-em", words.runs / "isbi")
    made = {
        "size": (words.window or 388,) * 2,
        "fit": "same",
        "batch": 2,
        "epochs": words.epochs or 22,
        "options": {"width": words.width, "norm": True},
        "optimiser": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.01},
        "augment": "flip,vflip,rotate=180,scale=0.1,elastic=8",
        "task": "segment",
    }
    rows, found = [], {}
    for name, border in (("border-10", 10.0), ("border-0", 0.0)):
        if words.nets and name not in words.nets:
            continue
        masks = {"objects": "cell", "border": border, "windows": 4}
        run = _trained("unet", data, words.runs, f"isbi-{name}", {**made, "masks": masks})
        scores, table = run.run.results(), _per_class(run, "test")
        test = scores["metrics"]["test"]
        rows.append([name, *(f"{test[key]:.4f}" for key in ("pixel_error", "rand_f"))])
        rows[-1] += [f"{table[c]:.4f}" for c in ("cell", "membrane")] + [f"{scores['seconds']:.0f}"]
        found[name] = {"metrics": scores["metrics"], "iou": table, "seconds": scores["seconds"]}
        found[name]["rand_by_threshold"] = by_threshold = _rand_by_threshold(run, open_masks(data))
        best = max(by_threshold, key=lambda t: by_threshold[t]["rand_f"])
        rows[-1] += [f"{by_threshold[best]['rand_f']:.4f} at {best}"]
    columns = (
        *("", "pixel error", "Rand F", "IoU cell", "IoU membrane", "seconds"),
        "best Rand F, cell above",
    )
    common.table("unet on ISBI 2012, six slices that it has not seen", columns, rows)
    plan = {k: v if k != "size" else list(v) for k, v in made.items()}
    common.write(words.results, "membranes", {"runs": found, "plan": plan})
    cases = {name: LoadedRunOf(words.runs / f"isbi-{name}") for name in found}
    _pictures(cases, open_masks(data), 2, words.results / "membranes.png")


def _rand_by_threshold(run: LoadedRun, source: MaskSource) -> dict[str, dict[str, float]]:
    """Rand scores of the test slices, a pixel being cell where its probability is above each
    threshold, as the challenge scored: one gap of a pixel joins two cells."""
    cell = run.card.classes.index("cell")
    sums: dict[str, Any] = {}
    for row in source.rows("test").tolist():
        sample = source[row]
        x = run.card.preprocess.normalise(torch.from_numpy(sample.image[None]))
        with torch.inference_mode():
            chance = run.model(x).softmax(1)[0, cell].numpy()
        for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
            said = np.where(chance > threshold, cell, 1 - cell).astype(np.uint8)
            key = f"{threshold:g}"
            sums[key] = sums.get(key, 0) + pair_sums(sample.target, said, cell)
    return {key: rand(pairs) for key, pairs in sums.items()}


def _slices(given: Path, folder: Path) -> Path:
    """ISBI's slices as links, the last six apart as the test part."""
    numbers = sorted(int(path.stem) for path in (given / "image").glob("*.png"))
    for place, number in enumerate(numbers):
        part = "test" if place >= len(numbers) - HELD_OUT else "train"
        for kind, ours in (("image", "images"), ("label", "masks")):
            link = folder / part / ours / f"{number:02d}.png"
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(given / kind / f"{number}.png")
    (folder / "classes.txt").write_text("\n".join(MEMBRANES) + "\n")
    return folder


# Streets ----------------------------------------------------------------------------------------


def street(words: argparse.Namespace) -> None:
    """The systems side by side: mean IoU on the test part, 11 classes."""
    data = words.data / "camvid"
    plan = {**STREET, "masks": {"classes": str(_class_list(words.runs))}, "task": "segment"}
    plan["epochs"] = words.epochs or plan["epochs"]
    small = {"body": words.body, "weights": "imagenet"}
    nets: dict[str, dict[str, Any]] = {
        **{f"fcn{stride}s": small for stride in (32, 16, 8)},
        "unet_padded": small,
        "deconvnet": {"options": {"width": 0.25, "fc": 512}},
        "deeplab_v1": {**small, "options": {"fc": 256}},
    }
    rows, found = [], {}
    for name, own in nets.items():
        if words.nets and name not in words.nets:
            continue
        seeds = range(words.seeds if name.startswith("fcn") else 1)
        for seed in seeds:
            said = {**plan, **own, "seed": seed}
            run = _trained(name, data, words.runs, f"{name}-seed{seed}", said)
            scores = run.run.results()
            row = {"test": scores["metrics"]["test"], "val": scores["metrics"]["val"]}
            row["seconds"] = scores["seconds"]
            if name == "deeplab_v1":
                row |= _by_crf(run)
            found[f"{name}-seed{seed}"] = row
            rows.append([name, seed, f"{row['test']['miou']:.4f}", f"{row['val']['miou']:.4f}"])
            refined = [row[k]["miou"] for k in ("crf_test", "crf") if k in row]
            rows[-1] += [f"{miou:.4f}" for miou in refined] or ["", ""]
            rows[-1].append(f"{row['seconds']:.0f}")
    columns = ("net", "seed", "test mIoU", "val", "test with CRF", "val with CRF", "seconds")
    common.table("CamVid, 11 classes", columns, rows)
    common.write(words.results, "street", {"runs": found, "body": words.body})
    cases = {name: LoadedRunOf(words.runs / name) for name in found if name.endswith("seed0")}
    _pictures(cases, open_masks(data, classes=_class_list(words.runs)), 3,
              words.results / "street.png")  # fmt: skip


def _by_crf(run: LoadedRun) -> dict[str, Any]:
    """With the CRF whose settings do best on the validation part, as DeepLab chose its own."""
    tried = {word: run.evaluate(refine=word, parts=["val"])["val"] for word in SETTINGS}
    word = max(tried, key=lambda w: tried[w]["miou"])
    return {
        "crf": tried[word],
        "crf_test": run.evaluate(refine=word, parts=["test"])["test"],
        "setting": word,
        "tried": {w: scores["miou"] for w, scores in tried.items()},
    }


def best(words: argparse.Namespace) -> None:
    """One net, the best that an hour gives."""
    data = words.data / "camvid"
    side = words.window or 256
    masks = {"classes": str(_class_list(words.runs)), "windows": 1, "balance": "inverse-log"}
    plan = {
        "epochs": words.epochs or 30,
        "batch": 8,
        "optimiser": {"name": "adamw", "lr": 6e-3, "weight_decay": 0.01},
        "body": words.body,
        "weights": "imagenet",
        "task": "segment",
        "masks": masks,
        "size": (side, side),
        "fit": "same",
    }
    run = _trained("unet_padded", data, words.runs, "camvid-best", plan)
    scores, table = run.run.results(), _per_class(run, "test")
    rows = [[name, f"{iou:.3f}"] for name, iou in table.items()]
    rows.append(["mean", f"{scores['metrics']['test']['miou']:.4f}"])
    flipped = run.evaluate(tta="flip", parts=["test"])["test"]
    rows.append(["with the mirror image", f"{flipped['miou']:.4f}"])
    common.table(f"CamVid test, {scores['seconds']:.0f} s", ("class", "IoU"), rows)
    record = {"metrics": scores["metrics"], "flip": flipped, "iou": table}
    common.write(words.results, "street-best", record | {"seconds": scores["seconds"]})
    _pictures({"unet_padded": run}, open_masks(data, classes=_class_list(words.runs)), 4,
              words.results / "street-best.png")  # fmt: skip


def _class_list(folder: Path) -> Path:
    path = folder / "camvid.txt"
    path.write_text("\n".join(CAMVID) + "\n")
    return path


# Windows, and the CRF ----------------------------------------------------------------------------


def sliding(words: argparse.Namespace) -> None:
    """Every window by itself against the same net fully convolutional."""
    torch.manual_seed(0)
    image = _grey(words.data / "isbi-em" / "image" / "0.png")
    rows, found = [], []
    for side in (32, 64):
        net = build("sliding_window", classes=2, channels=1, size=(side, side)).eval()
        x = image[:, :, :side, :side]
        with torch.inference_mode():
            times = common.in_turns(
                {"windows": _timed(net.by_windows, x), "dense": _timed(net, x)}, words.rounds
            )
            one, other = (_evened(logits) for logits in (net.by_windows(x), net(x)))
            alike = (one.argmax(1) == other.argmax(1)).float().mean().item()
            apart = ((one - other).abs().max() / other.abs().max()).item()
        ratio = common.ratio(times["windows"], times["dense"])
        rows.append([f"{side} x {side}", common.shown(common.summary(times["windows"]), ".3f")])
        rows[-1] += [common.shown(common.summary(times["dense"]), ".4f")]
        rows[-1] += [common.shown(ratio), f"{alike:.4%}", f"{apart:.1e}"]
        found.append({"side": side, "times": times, "ratio": ratio})
        found[-1] |= {"labels_equal": alike, "logits_apart": apart}
    columns = ("image", "by windows, s", "convolutional, s", "times as fast", "labels equal",
               "logits apart")  # fmt: skip
    common.table("sliding_window, 65 x 65", columns, rows)
    common.write(words.results, "sliding", {"sizes": found})


def _evened(logits: torch.Tensor) -> torch.Tensor:
    """Every class is as likely as the others on average: a net that has learnt nothing would give
    every pixel the same label."""
    return logits - logits.mean((2, 3), keepdim=True)


def _timed(work: Any, x: torch.Tensor) -> Any:
    def run() -> float:
        began = time.perf_counter()
        work(x)
        return time.perf_counter() - began

    return run


def crf(words: argparse.Namespace) -> None:
    """Ten mean-field steps on photos of BSDS500, for 2 and 21 classes."""
    photos = sorted((words.data / "bsds500" / "images" / "test").glob("*.jpg"))[: words.rounds]
    rows, found = [], {}
    for classes in (2, 21):
        seconds = []
        for photo in photos:
            image = torch.from_numpy(decode(photo))[None].float()
            logits = torch.randn(1, classes, *image.shape[2:])
            with torch.inference_mode():
                began = time.perf_counter()
                DenseCRF()(image, logits)
                seconds.append(time.perf_counter() - began)
        found[classes] = common.summary(seconds)
        rows.append([classes, common.shown(found[classes], ".2f")])
    common.table(f"fully connected CRF, 481 x 321, {torch.get_num_threads()} threads",
                 ("classes", "seconds"), rows)  # fmt: skip
    common.write(words.results, "crf", {"seconds": found})


# Shared ------------------------------------------------------------------------------------------


def _trained(model: str, data: Path, out: Path, name: str, words: dict[str, Any]) -> LoadedRun:
    """A run of that name, trained if it is not."""
    folder = out / name
    if isinstance(words.get("augment"), str):
        words = {**words, "augment": Augment.parse(words["augment"])}
    if not (folder / "config.json").exists():
        hubel.train(model, data, out=out, name=name, tell=_say, **words)
    elif not Run.open(folder).finished:
        hubel.resume(folder, tell=_say)
    return LoadedRunOf(folder)


def LoadedRunOf(folder: Path) -> LoadedRun:
    """A finished run."""
    found = hubel.load_run(folder)
    if not isinstance(found, LoadedRun):
        raise HubelError(f"{folder} is a group of runs")
    return found


def _say(event: Any) -> None:
    if type(event).__name__ in ("Epoch", "Notice"):
        print(event, flush=True)


def _per_class(run: LoadedRun, part: str) -> dict[str, float]:
    """IoU of each class, from the confusion that the run's report shows."""
    with np.load(run.run.folder / "evidence.npz") as arrays:
        confusion = arrays["confusion"].astype(float)
    record = json.loads((run.run.folder / "evidence.json").read_text())
    assert record["part"] == part
    both = np.diagonal(confusion)
    union = confusion.sum(0) + confusion.sum(1) - both
    return dict(zip(run.card.classes, (both / union).tolist(), strict=True))


def _pictures(runs: dict[str, LoadedRun], source: MaskSource, count: int, path: Path) -> None:
    """Photo, truth and every net's answer with what is wrong in it, for some test images: one image
    below the other, or, where many nets answer, one net below the other."""
    rows = source.rows("test")
    rows = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    downwards = len(runs) > 2
    tall, across = (1 + len(runs), count) if downwards else (count, 1 + len(runs))
    dpi = 80 if downwards else 110
    figure = Figure(figsize=(4.8 * across, 2.0 * tall), dpi=dpi, layout="constrained")
    axes = figure.subplots(tall, 2 * across, squeeze=False)
    for number, row in enumerate(rows.tolist()):
        sample = source[row]
        pairs = [[("image", sample.image), ("truth", _over(sample.image, sample.target, source))]]
        for name, run in runs.items():
            (found,) = run.predict([source.path(row)])
            wrong = np.asarray(difference(sample.target, found.mask))
            over = _over(sample.image, found.mask, source)
            pairs.append([(name.removesuffix("-seed0"), over), ("where wrong", wrong)])
        for step, pair in enumerate(pairs):
            line, place = (step, number) if downwards else (number, step)
            for side, (title, picture) in enumerate(pair):
                where = axes[line, 2 * place + side]
                grey = picture.ndim == 3 and picture.shape[0] in (1, 3)
                where.imshow(picture.transpose(1, 2, 0) if grey else picture, cmap="gray")
                where.set_title(title, fontsize=8)
                where.axis("off")
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _over(image: Any, mask: Any, source: MaskSource) -> Any:
    return np.asarray(overlay(image, mask, source.colours))


def _grey(path: Path) -> torch.Tensor:
    return torch.from_numpy(decode(path))[None].float() / 255 - 0.5


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("what", choices=list(WHAT))
    parser.add_argument(
        "--data", type=Path, required=True, help="holds isbi-em/, camvid/, bsds500/"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/segmentation"))
    parser.add_argument("--epochs", type=int, help="of each training")
    parser.add_argument("--width", type=int, default=24, help="first maps of unet (paper: 64)")
    parser.add_argument("--window", type=int, help="pixels a side")
    parser.add_argument("--body", default=BODY)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--nets", nargs="*", help="only these")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(argv)


WHAT = {
    "membranes": membranes, "street": street, "best": best, "sliding": sliding, "crf": crf,
}  # fmt: skip


if __name__ == "__main__":
    main()
