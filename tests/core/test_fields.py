"""What a wrong name was meant to be, and configs that lack fields."""

from permix_jax.core.fields import did_you_mean, filled_up


def test_the_nearest_names_alone_are_offered():
    assert did_you_mean("tinny", ["tiny", "tokens", "qwen3"]) == "; did you mean tiny?"
    assert did_you_mean("ab1", ["abc", "abd", "xyz"]) == "; did you mean abd or abc?"
    assert did_you_mean("zzz", iter(["tiny"])) == ""


def test_what_a_config_lacks_is_filled_up_and_what_it_has_stays():
    config = {"seed": 3, "model": {"dtype": "float32"}}
    defaults = {"seed": 0, "model": {"dtype": "bfloat16", "remat": "none"}, "mesh": {"data": 1}}
    assert filled_up(config, defaults) == {
        "seed": 3,
        "model": {"dtype": "float32", "remat": "none"},
        "mesh": {"data": 1},
    }
    assert config == {"seed": 3, "model": {"dtype": "float32"}}
