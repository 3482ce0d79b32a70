"""The reader of PyTorch's old files: one that PyTorch 2.13 wrote, damage, and hostile pickles."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from study.data.formats.dataset import DataError
from study.interop.torch_file import MAGIC, PROTOCOL, read_state_dict

# torch.save of {"transposed": a.t(), "part": a[1:, 1:3], "count": 7, "whole": a, "empty": 0 x 3}
# with a = arange(12.).reshape(3, 4), in the format before 1.6.
FILE = Path(__file__).parent / "state_dict_before_1_6.pth"


def test_views_of_one_storage_have_their_own_strides_and_offsets():
    a_3x4 = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensors = read_state_dict(FILE)
    assert list(tensors) == ["transposed", "part", "count", "whole", "empty"]
    np.testing.assert_array_equal(tensors["transposed"], a_3x4.T)
    np.testing.assert_array_equal(tensors["part"], a_3x4[1:, 1:3])
    np.testing.assert_array_equal(tensors["whole"], a_3x4)
    assert tensors["count"] == 7 and tensors["count"].shape == ()
    assert tensors["empty"].shape == (0, 3)
    assert tensors["count"].dtype == np.int64 and tensors["whole"].dtype == np.float32


class Call:
    def __reduce__(self):
        return (print, ("this ran",))


HEAD = [MAGIC, PROTOCOL, {"little_endian": True}]


@pytest.mark.parametrize(
    ("pickles", "reason"),
    [
        ([*HEAD, Call(), []], "it uses __builtin__.print, which is not allowed"),
        ([Call()], "it uses __builtin__.print, which is not allowed"),
        ([*HEAD, {"weight": np.float32(1)}, []], "which is not allowed"),
        ([*HEAD, {"weight": 1.0}, []], "not a dict of tensors"),
        ([MAGIC + 1, PROTOCOL], "another magic number or protocol"),
        ([MAGIC, PROTOCOL, {"little_endian": False}], "big-endian numbers"),
    ],
)
def test_what_is_no_state_dict_is_refused_and_nothing_runs(pickles, reason, tmp_path, capsys):
    path = tmp_path / "file.pth"
    path.write_bytes(b"".join(pickle.dumps(each, protocol=2) for each in pickles))
    with pytest.raises(DataError, match=reason) as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


# A stride of 4 becomes one of 5: the last row is outside.
STRIDES, OUTSIDE = b"K\x04K\x01\x86q", b"K\x05K\x01\x86q"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-4], "is cut short"),
        (lambda data: data[:300], "is not a state dict"),
        (lambda data: data.replace(STRIDES, OUTSIDE), "reaches outside its storage"),
        (lambda data: data.replace(b"FloatStorage", b"HalfStorage\n"), "is not a state dict"),
        (lambda data: b"PK\x03\x04" + data, "is not a state dict"),
        (lambda _: b"", "is not a state dict"),
    ],
)
def test_damage_is_one_line(damage, reason, tmp_path):
    path = tmp_path / "file.pth"
    data = FILE.read_bytes()
    path.write_bytes(damage(data))
    assert path.read_bytes() != data
    with pytest.raises(DataError, match=reason) as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.pth: No such file"):
        read_state_dict(tmp_path / "no.pth")
