"""Numbers too small for float32's usual form count as zero within a step.

A momentum whose gradients have stopped shrinks step by step until it is such a number (below
1.2e-38), and stays one. Intel's processors are slow with those: on a Xeon a training of LeNet-5 in
batches of 4 took twice the time.
"""

from __future__ import annotations

import platform

X86 = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

; As zero from here on, read and written; how it was before.
define internal i64 @tiny_off() nounwind {
  %place = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %before = load i32, ptr %place
  %off = or i32 %before, 32832
  store i32 %off, ptr %place
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  %told = zext i32 %before to i64
  ret i64 %told
}

define internal void @tiny_as(i64 %before) nounwind {
  %place = alloca i32
  %word = trunc i64 %before to i32
  store i32 %word, ptr %place
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret void
}
"""

ARM = """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)

define internal i64 @tiny_off() nounwind {
  %before = call i64 @llvm.aarch64.get.fpcr()
  %off = or i64 %before, 16777216
  call void @llvm.aarch64.set.fpcr(i64 %off)
  ret i64 %before
}

define internal void @tiny_as(i64 %before) nounwind {
  call void @llvm.aarch64.set.fpcr(i64 %before)
  ret void
}
"""

ELSEWHERE = """
define internal i64 @tiny_off() nounwind {
  ret i64 0
}

define internal void @tiny_as(i64 %before) nounwind {
  ret void
}
"""

_TEXTS = {"x86_64": X86, "AMD64": X86, "aarch64": ARM, "arm64": ARM}
TINY = _TEXTS.get(platform.machine(), ELSEWHERE)
