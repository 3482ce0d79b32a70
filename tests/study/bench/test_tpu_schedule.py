"""Executed bundles, collectives and memory, read from schedules in libtpu's format."""

from __future__ import annotations

from study.bench.tpu_schedule import (
    executed_bundles,
    executed_collectives,
    on_chip_bytes,
    vmem_bytes,
)

# Two bundles, then a pipeline of 4 bundles whose body runs 6 - 2 times and holds a loop of 3 times
# 2. One bundle of the outer loop is printed within the inner one; empty ones have no depth.
KERNEL = """
= control target key start
LB: loop body
     0   :  { %13 = vsyncpa [#allocation4], 0 }
   0x1   :  {}
   0x4 LB: > { %s2 = sadd.s32 4294967295, %s3 /* iteration index, stage = 1 */ }
   0x5   :  {}
   0x6 LB: >> { %v6 = vld [vmem:[#allocation396_spill] sm:$0xff] }
   0x7   : > { %s9 = sshll.u32 (%p2), %s3, 4 }
   0x8   : >> { %p5 = scmp.ge.s32.totalorder %s8, 3 /* loop exit test */ }
   0x9   : > { %p8 = scmp.ge.s32.totalorder %s3, 6 /* loop exit test */ }
"""
HLO = """HloModule jit_step

%cheap (a.1: f32[8]) -> f32[8] {
  ROOT %same.1 = f32[8]{0} bitcast(%a.1)
}

%costly (a.2: f32[8]) -> f32[8] {
  ROOT %kernel.3 = f32[8]{0} fusion(%a.2), kind=kLoop, calls=%fused
}

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %kernel = f32[8]{0} fusion(%arg), kind=kLoop, calls=%fused
  %sent = (f32[8], f32[8], u32[]) collective-permute-start(%kernel), channel_id=1
  %choice = f32[8] conditional(%p, %a, %a), branch_computations={%costly, %cheap}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %loop = (s32[], f32[8]) while(%tuple), condition=%test, body=%body
  %kernel.2 = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused
  %all = f32[64]{0} all-gather(%kernel.2), channel_id=2
  %own = bf16[8]{0} fusion(%all), kind=kCustom, calls=%all-reduce-scatter
}
"""
BUNDLES = 2 + 4 * (4 + 3 * 2)


def test_executed_bundles_and_memory(tmp_path):
    (tmp_path / "1-TLP-hlo.txt").write_text(HLO)
    (tmp_path / "2-kernel.2-72-final_bundles.txt").write_text(KERNEL)
    (tmp_path / "2-kernel.2-71-schedule-analysis_final_bundles.txt").write_text(KERNEL)
    (tmp_path / "3-kernel-72-final_bundles.txt").write_text("     0   :  { %1 = nop }\n")
    assert executed_bundles(tmp_path, 10) == BUNDLES + 10


def test_memory_on_the_chip(tmp_path):
    spilled = (
        "#allocation2 [shape = 'u8[64]', space=vmem, size = 0x40, offset = 0x100, scoped, tag]"
    )
    (tmp_path / "2-kernel.2-69-post-delay-converter.txt").write_text(f"{spilled}\n")
    (tmp_path / "3-kernel-69-post-delay-converter.txt").write_text("")
    assert vmem_bytes(tmp_path) == 0x140

    assert on_chip_bytes(tmp_path) == 0
    lines = (
        "buffer_id,size,offset,start_time,end_time",
        "-4,900,0,0,9",
        "4,64,900,0,3",
        "5,8,950,3,4",
    )
    path = tmp_path / "1-TLP-01-memory-space-assignment-allocinfo.txt"
    path.write_text("\n".join(lines))
    assert on_chip_bytes(tmp_path) == 64


def test_executed_collectives():
    assert executed_collectives(HLO, 7, 8) == {
        "collective-permute": (7, 7 * 32),
        "all-gather": (1, 224),
        "reduce-scatter": (1, 7 * 16),
    }
