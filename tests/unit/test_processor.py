"""Whether bfloat16 is computed or emulated, by what Linux says of processors."""

import pytest

from job.processor import emulates_bfloat16

X86 = "processor\t: 0\nmodel name\t: Some Processor\nflags\t\t: fpu avx2 avx512f {}\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd i8mm {}\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("text", "emulates"),
    [
        (X86.format(""), True),
        (X86.format("avx512_bf16"), False),
        (X86.format("amx_bf16 amx_tile"), False),
        (ARM.format(""), True),
        (ARM.format("bf16"), False),
        ("", False),  # nothing is known
    ],
)
def test_the_features_tell(tmp_path, text, emulates):
    (tmp_path / "cpuinfo").write_text(text)
    assert emulates_bfloat16(tmp_path / "cpuinfo") == emulates


def test_a_system_that_does_not_tell_is_not_accused(tmp_path):
    assert not emulates_bfloat16(tmp_path / "none")
