"""From LLVM's language to machine code in this process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hubel.engine.native.emit import Function
from hubel.engine.native.machine import Machine


def module_text(functions: Iterable[Function], machine: Machine, rest: str = "") -> str:
    """One module of all the functions, with what they declare; `rest` is put as it is."""
    bodies, needs = [], set()
    for f in functions:
        bodies.append(f.text())
        needs |= f.needs
    width = machine.lanes * 32
    attributes = (
        f'attributes #0 = {{ nounwind "min-legal-vector-width"="{width}" '
        f'"prefer-vector-width"="{width}" "no-trapping-math"="true" }}'
    )
    return "\n\n".join([*sorted(needs), rest, *bodies, attributes])


def compile_object(text: str, machine: Machine, level: int = 0) -> bytes:
    """The module's machine code, as an object file."""
    import llvmlite.binding as llvm  # noqa: PLC0415

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    module = llvm.parse_assembly(text)
    module.verify()
    target = _target(machine)
    module.triple, module.data_layout = llvm.get_default_triple(), str(target.target_data)
    if level:
        tuning = llvm.create_pipeline_tuning_options(speed_level=level)
        tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False
        builder = llvm.create_pass_builder(target, tuning)
        builder.getModulePassManager().run(module, builder)
    return bytes(target.emit_object(module))


def _target(machine: Machine) -> Any:
    """With addresses of 64 bits: code, constants and C's functions may lie anywhere in memory."""
    import llvmlite.binding as llvm  # noqa: PLC0415

    return llvm.Target.from_default_triple().create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, reloc="pic", codemodel="large"
    )


class Loaded:
    """Machine code in memory, for as long as this object lives."""

    def __init__(self, code: bytes, machine: Machine, names: Sequence[str]) -> None:
        import llvmlite.binding as llvm  # noqa: PLC0415

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.initialize_native_asmparser()
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target(machine))
        self._engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.address = {name: self._engine.get_function_address(name) for name in names}
