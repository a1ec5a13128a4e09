"""launch/train.py as a user meets it: every mistake is answered by one line."""

import pytest
from runs import ROOT, train

PERMIX = str(ROOT / "configs/permix.py")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "name a config: --config=configs/permix.py"),
        ([f"--config={PERMIX}x"], f"there is no file {PERMIX}x; did you mean"),
        ([f"--config={PERMIX}:tinny"], "no preset 'tinny'"),
        (
            [f"--config={PERMIX}:tiny", "--config.trian.steps=3"],
            "--config.trian.steps: the config has no such field; did you mean train.steps",
        ),
        ([f"--config={PERMIX}:tiny", "--config.rollout.group_size=1"], "rollout.group_size is 1"),
        (
            [f"--config={PERMIX}:smollm2_mawps", "--config.data.folder=nowhere"],
            "data.folder is 'nowhere'",
        ),
        ([f"--config={PERMIX}:tiny", "stray"], "'stray' is not a flag"),
    ],
)
def test_mistakes_end_in_one_clear_line(tmp_path, args, message):
    out = train(*args, cwd=tmp_path)
    assert out.returncode == 1
    assert message in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1, out.stderr
    assert not (tmp_path / "runs").exists()
