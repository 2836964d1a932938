"""Machine code: for this processor, kept whole or not at all, and for ARM."""

import ctypes
import mmap

import llvmlite.binding as llvm
import pytest
import torch
from native_kernel import every_machine

from hubel.engine.native import tiny
from hubel.engine.native.emit import F32, PTR, Function
from hubel.engine.native.jit import Loaded, compile_object, module_text
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.correlate import Correlate, write_correlate
from hubel.engine.native.kernels.functions import lanewise
from hubel.engine.native.machine import Machine


def logarithms(machine):
    """A function with a constant of its own, which calls one of C's."""
    f = Function("logs", [("x", PTR), ("y", PTR)], machine.lanes, internal=False)
    f.store(lanewise(f, "logf", f.load(f.arg("x"))) * 1.5, f.arg("y"))
    return f


@every_machine
def test_constants_and_functions_of_cs_are_found_however_far_they_lie(machine):
    code = compile_object(module_text([logarithms(machine)], machine), machine)
    between, loaded = [], []
    for _ in range(8):
        loaded.append(Loaded(code, machine, ["logs"]))
        between.append(mmap.mmap(-1, 3 << 30))  # addresses, not memory
    x, y = torch.rand(machine.lanes) + 0.1, torch.zeros(machine.lanes)
    for one in loaded:
        call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(one.address["logs"])
        call(x.data_ptr(), y.data_ptr())
        assert torch.allclose(y, x.log() * 1.5, rtol=1e-6)


def test_a_module_that_is_wrong_is_refused_before_it_is_code():
    machine = Machine(4, 16, "", "")
    f = Function("bad", [("x", PTR)], 4, internal=False)
    f.do("store float 0.0, ptr %nowhere")
    with pytest.raises(RuntimeError, match="undefined value '%nowhere'"):
        compile_object(module_text([f], machine), machine)


def test_every_function_declares_what_it_calls_once():
    machine = Machine(4, 16, "", "")
    functions = [logarithms(machine), logarithms(machine)]
    functions[1].name = "again"
    text = module_text(functions, machine)
    assert text.count("declare float @logf(float)") == 1
    assert f"define void @again({PTR} %x, {PTR} %y)" in text
    assert F32 in text


def test_the_convolution_becomes_arms_multiply_adds():
    """No ARM is here to run it; LLVM at least takes it, and finds the instruction for it."""
    machine = Machine(4, 32, "generic", "+neon")
    rows = columns = Axis(8, 8, 3, 1, 1)
    spec = Correlate(4, 8, 1, rows, columns, 36, 9, 1024, 128, 16, 1024, 128, 16)
    text = module_text([write_correlate("conv", spec, machine)], machine)
    text = text.replace("define internal", "define")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple("aarch64-linux-gnu").create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, reloc="pic", codemodel="large"
    )
    module = llvm.parse_assembly(text)
    module.triple = "aarch64-linux-gnu"
    assembly = target.emit_assembly(module)
    assert assembly.count("fmla\tv") >= 48  # a block of 4 x 4 sums, three taps a row
    assert "bl\tfmaf" not in assembly


def test_tiny_numbers_are_switched_off_on_arm_by_its_own_register():
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple("aarch64-linux-gnu").create_target_machine(cpu="generic")
    module = llvm.parse_assembly(tiny.ARM.replace("define internal", "define"))
    module.triple = "aarch64-linux-gnu"
    assembly = target.emit_assembly(module)
    assert "orr\tx8, x0, #0x1000000" in assembly  # bit 24 of FPCR: flush to zero
    assert assembly.count("msr\tFPCR") == 2
