"""What lectures derive on the board, worked by hand and held against the operators."""

import itertools

import numpy as np
import pytest
import torch
from scipy import signal

from hubel.engine.backprop import backpropagate
from hubel.engine.check import check_op
from hubel.engine.ops import OPS
from hubel.engine.ops.softmax import jacobian
from hubel.engine.tape import Tape

CONV, TRANSPOSED, TRUE = OPS["conv"], OPS["conv_transposed"], OPS["true_convolution"]
ONE = {"stride": (1,), "padding": (0,), "dilation": (1,), "groups": 1}
TWO = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def noise(*shape, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=chance, dtype=torch.float64)


def assert_equal(got, expected):
    if not isinstance(expected, torch.Tensor):
        expected = torch.tensor(expected, dtype=got.dtype)
    torch.testing.assert_close(got, expected.detach().to(got), rtol=1e-12, atol=1e-12)


# ---- softmax and cross-entropy


def test_the_jacobian_of_softmax_is_diag_p_minus_p_p_transposed():
    z = numbers(0.5, -1.0, 2.0, 0.0)
    p = torch.softmax(z, 0)
    by_hand = torch.tensor(
        [[p[i] * (int(i == j) - p[j]) for j in range(4)] for i in range(4)], dtype=torch.float64
    )
    assert_equal(jacobian(p), by_hand)
    assert_equal(jacobian(p), torch.autograd.functional.jacobian(lambda z: z.softmax(0), z))


def test_the_jacobian_of_two_equal_scores_is_a_quarter():
    assert_equal(jacobian(numbers(0.5, 0.5)), [[0.25, -0.25], [-0.25, 0.25]])


def test_the_backward_of_softmax_is_its_jacobian_times_the_gradient():
    z, dp = noise(1, 5), noise(1, 5, seed=1)
    p, saved = OPS["softmax"].forward(z, axis=1)
    (dz,) = OPS["softmax"].backward(dp, saved)
    assert_equal(dz[0], jacobian(p[0]) @ dp[0])


def test_a_row_of_the_jacobian_of_softmax_adds_up_to_zero():
    assert_equal(jacobian(noise(6).softmax(0)).sum(1), torch.zeros(6))


def test_the_gradient_of_cross_entropy_by_the_scores_is_p_minus_y_over_n():
    z, target = noise(3, 4), torch.tensor([2, 0, 3])
    loss, saved = OPS["cross_entropy"].forward(z, target, None)
    dz, *_ = OPS["cross_entropy"].backward(torch.ones_like(loss), saved)
    p = z.exp() / z.exp().sum(1, keepdim=True)
    y = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    assert_equal(dz, (p - y) / 3)
    assert_equal(loss, -(p[0, 2].log() + p[1, 0].log() + p[2, 3].log()) / 3)


def test_cross_entropy_of_even_scores_is_the_log_of_the_classes():
    loss, _ = OPS["cross_entropy"].forward(torch.zeros(2, 10).double(), torch.tensor([3, 7]), None)
    assert_equal(loss, np.log(10))


def test_softmax_then_log_likelihood_give_the_same_gradient_as_both_in_one():
    z, target = noise(3, 4), torch.tensor([2, 0, 3])
    logp, first = OPS["log_softmax"].forward(z, axis=1)
    _, second = OPS["cross_entropy"].forward(logp, target, None, logits=False)
    dlogp, *_ = OPS["cross_entropy"].backward(numbers(1.0)[0], second)
    (apart,) = OPS["log_softmax"].backward(dlogp, first)
    _, saved = OPS["cross_entropy"].forward(z, target, None)
    together, *_ = OPS["cross_entropy"].backward(numbers(1.0)[0], saved)
    assert_equal(apart, together)


# ---- convolution in one dimension

A, B, C, D, E, F = 2.0, -1.0, 0.5, 3.0, 4.0, -2.0
X, Y, Z = 0.7, 1.1, -0.4
U, W = numbers(A, B, C, D, E, F), numbers(Z, Y, X)
TOEPLITZ = [
    [Z, Y, X, 0, 0, 0],
    [0, Z, Y, X, 0, 0],
    [0, 0, Z, Y, X, 0],
    [0, 0, 0, Z, Y, X],
]
DY = numbers(1.0, -2.0, 0.5, 3.0)


def line(values):
    return values.view(1, 1, -1)


def one_dimensional():
    y, saved = CONV.forward(line(U), line(W), None, **ONE)
    du, dw, db = CONV.backward(line(DY), saved)
    assert db is None
    return y.flatten(), du.flatten(), dw.flatten()


def test_a_convolution_is_a_toeplitz_matrix_times_the_input():
    matrix = CONV.matrix((line(U), line(W), None), ONE, "x").to_dense()
    assert matrix.shape == (4, 6)
    assert_equal(matrix, TOEPLITZ)
    y, _, _ = one_dimensional()
    assert_equal(matrix @ U, y)


def test_a_convolution_written_out_term_by_term():
    y, _, _ = one_dimensional()
    by_hand = [
        Z * A + Y * B + X * C,
        Z * B + Y * C + X * D,
        Z * C + Y * D + X * E,
        Z * D + Y * E + X * F,
    ]
    assert_equal(y, by_hand)


def test_the_input_gets_the_transposed_matrix_times_the_gradient():
    _, du, _ = one_dimensional()
    assert_equal(du, numbers(*TOEPLITZ).T @ DY)


def test_the_inputs_gradient_is_the_full_correlation_with_the_flipped_kernel():
    _, du, _ = one_dimensional()
    assert_equal(du, np.convolve(DY.numpy(), W.numpy(), mode="full"))
    assert_equal(du, signal.correlate(DY.numpy(), W.numpy()[::-1], mode="full"))


def test_the_kernels_gradient_is_the_correlation_of_input_and_gradient():
    _, _, dw = one_dimensional()
    d1, d2, d3, d4 = DY.tolist()
    by_hand = [
        A * d1 + B * d2 + C * d3 + D * d4,
        B * d1 + C * d2 + D * d3 + E * d4,
        C * d1 + D * d2 + E * d3 + F * d4,
    ]
    assert_equal(dw, by_hand)
    assert_equal(dw, signal.correlate(U.numpy(), DY.numpy(), mode="valid"))


def test_a_convolution_is_linear_in_its_kernel_too():
    matrix = CONV.matrix((line(U), line(W), None), ONE, "w").to_dense()
    assert_equal(matrix, [[A, B, C], [B, C, D], [C, D, E], [D, E, F]])
    y, _, dw = one_dimensional()
    assert_equal(matrix @ W, y)
    assert_equal(matrix.T @ DY, dw)


def test_the_matrix_of_a_transposed_convolution_is_the_transpose():
    options = {**ONE, "output_padding": (0,)}
    matrix = TRANSPOSED.matrix((line(DY), line(W), None), options, "x").to_dense()
    assert_equal(matrix, numbers(*TOEPLITZ).T)
    y, _ = TRANSPOSED.forward(line(DY), line(W), None, **options)
    assert_equal(y.flatten(), matrix @ DY)
    assert_equal(y.flatten(), one_dimensional()[1])


@pytest.mark.parametrize("argument", ["x", "w"])
def test_the_matrix_of_a_strided_padded_grouped_convolution_gives_its_output(argument):
    x, w = noise(1, 4, 7, 5), noise(6, 2, 3, 2, seed=1)
    options = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    matrix = CONV.matrix((x, w, None), options, argument)
    y, _ = CONV.forward(x, w, None, **options)
    assert_equal(matrix.to_dense() @ (x if argument == "x" else w).flatten(), y.flatten())


def test_the_matrix_of_a_transposed_convolution_with_stride_gives_its_output():
    x, w = noise(1, 3, 4, 3), noise(3, 2, 3, 3, seed=1)
    options = {**TWO, "stride": (2, 2), "padding": (1, 1), "output_padding": (1, 0)}
    matrix = TRANSPOSED.matrix((x, w, None), options, "x")
    y, _ = TRANSPOSED.forward(x, w, None, **options)
    assert_equal(matrix.to_dense() @ x.flatten(), y.flatten())


@pytest.mark.parametrize(("mode", "padding"), [("full", 2), ("valid", 0)])
def test_true_convolution_is_that_of_signal_processing(mode, padding):
    y, _ = TRUE.forward(line(U), line(W), stride=(1,), padding=(padding,))
    assert_equal(y.flatten(), signal.convolve(U.numpy(), W.numpy(), mode=mode))


@pytest.mark.parametrize(("mode", "padding"), [("full", (2, 1)), ("valid", (0, 0))])
def test_true_convolution_in_two_dimensions_is_that_of_signal_processing(mode, padding):
    x, w = noise(7, 5), noise(3, 2, seed=1)
    y, _ = TRUE.forward(x[None, None], w[None, None], stride=(1, 1), padding=padding)
    assert_equal(y[0, 0], signal.convolve2d(x.numpy(), w.numpy(), mode=mode))


@pytest.mark.parametrize(("mode", "padding"), [("full", 2), ("same", 1), ("valid", 0)])
def test_what_the_field_calls_convolution_is_correlation(mode, padding):
    y, _ = CONV.forward(line(U), line(W), None, **{**ONE, "padding": (padding,)})
    assert_equal(y.flatten(), signal.correlate(U.numpy(), W.numpy(), mode=mode))


def test_a_delta_of_true_convolution_gives_the_kernel_and_of_correlation_its_mirror_image():
    delta = line(numbers(0, 0, 1, 0, 0))
    true, _ = TRUE.forward(delta, line(W), stride=(1,), padding=(0,))
    correlated, _ = CONV.forward(delta, line(W), None, **ONE)
    assert_equal(true.flatten(), W)
    assert_equal(correlated.flatten(), W.flip(0))


# ---- convolution and pooling by loops


def inside(row, column, x):
    return 0 <= row < x.shape[2] and 0 <= column < x.shape[3]


def conv_by_loops(x, w, b, stride, padding, dilation, groups):
    """Batch, output channel, row, column, input channel, kernel row, kernel column."""
    n, outputs, (rows, columns) = x.shape[0], w.shape[0], _sizes(x, w, stride, padding, dilation)
    y = torch.zeros(n, outputs, rows, columns, dtype=x.dtype)
    for image, o, i, j in itertools.product(*map(range, y.shape)):
        total = float(b[o])
        first = o // (outputs // groups) * w.shape[1]
        for c, k, m in itertools.product(*map(range, w.shape[1:])):
            row = i * stride[0] - padding[0] + k * dilation[0]
            column = j * stride[1] - padding[1] + m * dilation[1]
            if inside(row, column, x):
                total += float(x[image, first + c, row, column]) * float(w[o, c, k, m])
        y[image, o, i, j] = total
    return y


def _sizes(x, w, stride, padding, dilation):
    return [
        (x.shape[2 + a] + 2 * padding[a] - dilation[a] * (w.shape[2 + a] - 1) - 1) // stride[a] + 1
        for a in (0, 1)
    ]


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [
        ((1, 1), (0, 0), (1, 1), 1),
        ((2, 3), (1, 2), (1, 1), 1),
        ((1, 2), (2, 1), (2, 1), 1),
        ((1, 1), (1, 1), (1, 1), 2),
        ((2, 1), (1, 0), (1, 2), 4),
    ],
)
def test_conv_is_seven_nested_loops(stride, padding, dilation, groups):
    x, w, b = noise(2, 4, 7, 6), noise(4, 4 // groups, 3, 2, seed=1), noise(4, seed=2)
    given = (stride, padding, dilation, groups)
    options = dict(zip(("stride", "padding", "dilation", "groups"), given, strict=True))
    y, _ = CONV.forward(x, w, b, **options)
    assert_equal(y, conv_by_loops(x, w, b, *given))


def windows_by_loops(x, kernel, stride, padding):
    """(output place, the places of the input under its window) for every output."""
    sizes = [(x.shape[2 + a] + 2 * padding[a] - kernel[a]) // stride[a] + 1 for a in (0, 1)]
    for n, c, i, j in itertools.product(*map(range, x.shape[:2]), *map(range, sizes)):
        spots = [
            (n, c, i * stride[0] - padding[0] + k, j * stride[1] - padding[1] + m)
            for k, m in itertools.product(*map(range, kernel))
        ]
        yield (n, c, i, j), [spot for spot in spots if inside(*spot[2:], x)]


POOLS = [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((3, 2), (1, 2), (0, 1))]


@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS)
def test_max_pooling_by_loops_both_ways(kernel, stride, padding):
    x = noise(2, 3, 7, 6)
    options = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": (1, 1)}
    y, saved = OPS["max_pool"].forward(x, **options)
    dy = noise(*y.shape, seed=1)
    expected, dx = torch.zeros_like(y), torch.zeros_like(x)
    for place, spots in windows_by_loops(x, kernel, stride, padding):
        best = max(spots, key=lambda spot: float(x[spot]))
        expected[place] = x[best]
        dx[best] += dy[place]
    assert_equal(y, expected)
    assert_equal(OPS["max_pool"].backward(dy, saved)[0], dx)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS)
def test_average_pooling_by_loops_both_ways(kernel, stride, padding, counted):
    x = noise(2, 3, 7, 6)
    options = {"kernel": kernel, "stride": stride, "padding": padding, "count_padding": counted}
    y, saved = OPS["average_pool"].forward(x, **options)
    dy = noise(*y.shape, seed=1)
    expected, dx = torch.zeros_like(y), torch.zeros_like(x)
    for place, spots in windows_by_loops(x, kernel, stride, padding):
        count = kernel[0] * kernel[1] if counted else len(spots)
        expected[place] = sum(float(x[spot]) for spot in spots) / count
        for spot in spots:
            dx[spot] += dy[place] / count
    assert_equal(y, expected)
    assert_equal(OPS["average_pool"].backward(dy, saved)[0], dx)


def test_max_pooling_sends_each_gradient_to_the_place_it_remembers():
    x = numbers([1, 3, 2, 0], [5, 4, 1, 6], [0, 2, 9, 8], [7, 1, 3, 5]).view(1, 1, 4, 4)
    options = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}
    (y, places), saved = OPS["max_pool"].forward(x, **options, indices=True)
    assert y.flatten().tolist() == [5, 6, 7, 9]
    assert places.flatten().tolist() == [4, 7, 12, 10]
    dy = numbers([10, 20], [30, 40]).view(1, 1, 2, 2)
    (dx,) = OPS["max_pool"].backward((dy, None), saved)
    assert dx[0, 0].tolist() == [[0, 0, 0, 0], [10, 0, 0, 20], [0, 0, 40, 0], [30, 0, 0, 0]]


def test_the_first_of_equal_winners_gets_it_all():
    options = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}
    _, saved = OPS["max_pool"].forward(torch.ones(1, 1, 2, 2).double(), **options)
    (dx,) = OPS["max_pool"].backward(torch.full((1, 1, 1, 1), 3.0).double(), saved)
    assert dx[0, 0].tolist() == [[3, 0], [0, 0]]


# ---- the network of two layers


SQUASH = {"sigmoid": torch.sigmoid, "relu": torch.relu}
SLOPE = {"sigmoid": lambda y: y * (1 - y), "relu": lambda y: (y > 0).double()}


@pytest.mark.parametrize("kind", ["sigmoid", "relu"])
def test_two_layers_worked_by_hand(kind):
    x, target = numbers(0.6, -1.2), numbers(1.0, 0.0)
    w, v = numbers([0.5, -0.3], [0.8, 0.9]), numbers([1.5, -0.7], [0.2, 0.4])
    watch = {"x": x, "w": w, "v": v}
    with Tape(watch=watch) as tape:
        z = v @ SQUASH[kind](w @ x)
        loss = ((z - target) ** 2).sum() / 2
    found = backpropagate(tape, loss)

    y1 = float(SQUASH[kind](w[0, 0] * x[0] + w[0, 1] * x[1]))
    y2 = float(SQUASH[kind](w[1, 0] * x[0] + w[1, 1] * x[1]))
    e1 = float(v[0, 0]) * y1 + float(v[0, 1]) * y2 - 1.0  # d loss / d z1
    e2 = float(v[1, 0]) * y1 + float(v[1, 1]) * y2 - 0.0
    d1 = float((e1 * v[0, 0] + e2 * v[1, 0]) * SLOPE[kind](numbers(y1)))  # at the hidden sums
    d2 = float((e1 * v[0, 1] + e2 * v[1, 1]) * SLOPE[kind](numbers(y2)))
    assert_equal(loss, (e1**2 + e2**2) / 2)
    assert_equal(found["v"], [[e1 * y1, e1 * y2], [e2 * y1, e2 * y2]])
    x1, x2 = x.tolist()
    assert_equal(found["w"], [[d1 * x1, d1 * x2], [d2 * x1, d2 * x2]])
    assert_equal(found["x"], [d1 * w[0, 0] + d2 * w[1, 0], d1 * w[0, 1] + d2 * w[1, 1]])


def test_squared_error_of_two_outputs_by_their_difference():
    z = numbers(3.0, 1.0)
    with Tape(watch={"z": z}) as tape:
        loss = (z[0] - z[1]) ** 2 / 2
    assert backpropagate(tape, loss)["z"].tolist() == [2.0, -2.0]


# ---- local response normalisation


def response_by_loops(x, n, alpha, beta, k):
    """b_i = a_i / (k + alpha * sum of a_j^2, j from i - n/2 to i + n/2) ^ beta, as printed."""
    y = torch.zeros_like(x)
    channels = x.shape[1]
    for image, i, row, column in itertools.product(*map(range, x.shape)):
        low, high = max(0, i - n // 2), min(channels - 1, i + n // 2)
        energy = sum(float(x[image, j, row, column]) ** 2 for j in range(low, high + 1))
        y[image, i, row, column] = x[image, i, row, column] / (k + alpha * energy) ** beta
    return y


@pytest.mark.parametrize("alpha", [1e-4, 0.3])
def test_local_response_norm_is_as_the_alexnet_paper_prints_it(alpha):
    x = noise(2, 7, 2, 3) * 3
    y, _ = OPS["local_response_norm"].forward(x, size=5, alpha=alpha, beta=0.75, k=2.0)
    assert_equal(y, response_by_loops(x, 5, alpha, 0.75, 2.0))


def test_torchs_layer_divides_the_papers_alpha_by_the_window():
    x = noise(2, 7, 2, 3)
    y, _ = OPS["local_response_norm"].forward(x, size=5, alpha=0.3, beta=0.75, k=2.0)
    layer = torch.nn.LocalResponseNorm(5, alpha=0.3 * 5, beta=0.75, k=2.0)
    torch.testing.assert_close(y, layer(x), rtol=1e-12, atol=1e-12)


# ---- batch norm


def test_the_gradient_of_batch_norm_has_no_mean_and_no_part_along_its_output():
    x, w = noise(6, 3), torch.ones(3).double()
    options = {"training": True, "momentum": 0.1, "eps": 0.0}
    xhat, saved = OPS["batch_norm"].forward(x, w, None, None, None, **options)
    dx, *_ = OPS["batch_norm"].backward(noise(6, 3, seed=1), saved)
    assert_equal(dx.mean(0), torch.zeros(3))
    assert_equal((dx * xhat).mean(0), torch.zeros(3))


def test_the_checker_agrees_with_the_lecture():
    assert check_op(CONV, (line(U), line(W), None), ONE)
