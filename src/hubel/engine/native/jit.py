"""From LLVM's language to machine code in this process."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from hubel.engine.native.emit import Function
from hubel.engine.native.machine import Machine


@functools.cache
def _llvm() -> Any:
    """LLVM, ready for this processor; 60 ms, so only where the native step runs."""
    import llvmlite.binding as llvm  # noqa: PLC0415

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    return llvm


def module_text(functions: Iterable[Function], machine: Machine, rest: str = "") -> str:
    """One module of all the functions, with what they declare; `rest` is put as it is."""
    bodies, needs = [], set()
    for f in functions:
        bodies.append(f.text())
        needs |= f.needs
    width = machine.floats * 32
    attributes = (
        f'attributes #0 = {{ nounwind "min-legal-vector-width"="{width}" '
        f'"prefer-vector-width"="{width}" "no-trapping-math"="true" }}'
    )
    return "\n\n".join([*sorted(needs), rest, *bodies, attributes])


def compile_object(text: str, machine: Machine) -> bytes:
    """The module's machine code, as an object file. The text is as good as passes could make it:
    they would only take their time."""
    llvm = _llvm()
    module = llvm.parse_assembly(text)
    module.verify()
    target = _target(machine)
    module.triple, module.data_layout = llvm.get_default_triple(), str(target.target_data)
    return bytes(target.emit_object(module))


def _target(machine: Machine) -> Any:
    """With addresses of 64 bits: code, constants and C's functions may lie anywhere in memory. The
    second level of optimising would compile for a quarter longer, for nothing that was seen."""
    return (
        _llvm()
        .Target.from_default_triple()
        .create_target_machine(
            cpu=machine.cpu, features=machine.features, opt=1, reloc="pic", codemodel="large"
        )
    )


class Loaded:
    """Machine code in memory, for as long as this object lives."""

    def __init__(self, code: bytes, machine: Machine, names: Sequence[str]) -> None:
        llvm = _llvm()
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target(machine))
        self._engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.address = {name: self._engine.get_function_address(name) for name in names}
