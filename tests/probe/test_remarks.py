"""What is said of costs, and what is not."""

from dataclasses import replace

from hubel.probe.costs import Costs, LayerCost
from hubel.probe.fields import WHOLE, Field
from hubel.probe.remarks import remarks

PLAIN = LayerCost("a", "Conv2d", (1, 2, 8, 8), 0, 0, 0, 0.0, 0.0, 1, WHOLE)


def row(layer, parameters=0, macs=0, uses=1, field=WHOLE):
    return replace(PLAIN, layer=layer, parameters=parameters, macs=macs, uses=uses, field=field)


def said(*rows, pooled=None, tied=()):
    return list(remarks(Costs(rows, 0, 0, 0, 0.0, pooled), (48, 64), tied))


def test_the_heaviest_layers_are_named():
    rows = row("conv1", 1, 30), row("conv2", 5, 61), row("fc1", 94, 9)
    assert said(*rows) == ["fc1 holds 94 % of the parameters; conv2 does 61 % of the multiply-adds"]


def test_one_layer_that_leads_in_both_is_named_once():
    rows = row("a", 80, 70), row("b", 20, 30)
    assert said(*rows) == ["a holds 80 % of the parameters and does 70 % of the multiply-adds"]


def test_where_no_layer_stands_out_nothing_is_said():
    assert said(*(row(str(k), 10, 10) for k in range(10))) == []


def test_of_a_single_layer_nothing_is_said():
    assert said(row("a", 10, 10)) == []


def test_a_field_smaller_than_the_image_is_told_before_global_pooling():
    (text,) = said(row("a"), pooled=Field((46, 90), (4.0, 4.0)))
    assert "sees 46x90 of the 48x64 pixels" in text
    assert said(row("a"), pooled=Field((48, 64), (4.0, 4.0))) == []
    assert said(row("a"), pooled=WHOLE) == []


def test_unknown_fields_are_owned_up_to():
    assert "not known" in said(row("a", field=None))[0]
    assert said(row("a", field=None), row("b")) == []


def test_layers_that_run_again_and_parameters_of_two_names():
    again = row("a", 9, 9, uses=3)
    assert said(again) == ["a ran 3 times: its parameters count once, its multiply-adds 3 times"]
    assert said(row("relu", uses=17)) == []
    assert said(row("a"), tied=[("out.weight", "in.weight")]) == [
        "out.weight is in.weight: it counts once"
    ]


def test_layers_that_never_ran_and_not_too_many_of_them():
    rows = [row("used"), *(row(f"aux{k}", 1, uses=0) for k in range(5))]
    assert said(*rows)[-1] == (
        "aux0, aux1, aux2 and 2 more never ran; the sums hold their parameters"
    )
