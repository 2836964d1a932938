"""How threads wait for each other in machine code: by looking, and by giving way now and then."""

from __future__ import annotations

import platform


def pause() -> str:
    """The instruction that tells the processor that a thread waits."""
    arm = platform.machine() in ("arm64", "aarch64")
    return f'call void asm sideeffect "{"yield" if arm else "pause"}", ""()'


WAIT = f"""
declare i32 @sched_yield()

; Until the number there has grown to the goal.
define internal void @wait(ptr %place, i64 %goal) nounwind {{
entry:
  br label %look
look:
  %spins = phi i64 [ 0, %entry ], [ %more, %again ]
  %now = load atomic i64, ptr %place acquire, align 8
  %there = icmp uge i64 %now, %goal
  br i1 %there, label %done, label %spin
spin:
  {pause()}
  %more = add i64 %spins, 1
  %long = icmp ugt i64 %more, 4000
  br i1 %long, label %yield, label %again
yield:
  %ignored = call i32 @sched_yield()
  br label %again
again:
  br label %look
done:
  ret void
}}
"""

MEET = """
; Until all threads have come. The meter only grows within a step.
define internal void @meet(ptr %meter, i64 %threads) nounwind {
  %before = atomicrmw add ptr %meter, i64 1 seq_cst
  %round = udiv i64 %before, %threads
  %next = add i64 %round, 1
  %goal = mul i64 %next, %threads
  call void @wait(ptr %meter, i64 %goal)
  ret void
}
"""
