"""What a wrong name was meant to be."""

from permix_jax.fields import did_you_mean


def test_the_nearest_names_alone_are_offered():
    assert did_you_mean("tinny", ["tiny", "tokens", "qwen3"]) == "; did you mean tiny?"
    assert did_you_mean("ab1", ["abc", "abd", "xyz"]) == "; did you mean abd or abc?"
    assert did_you_mean("zzz", iter(["tiny"])) == ""
