"""The least time of a step, counted by hand for a model of one layer."""

import pytest
from limits import Machine, least_seconds
from settings import Setting

# A head of size 2: q and o take 4 multiply-adds a token each, k and v too, the MLP 3 * 2 * 3 = 18.
SHAPE = {
    "hidden_size": 2,
    "intermediate_size": 3,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "vocab_size": 5,
}
LAYER, HEAD, KEY = 34, 10, 4  # multiply-adds: of a token, its logits, and each key that it sees


def test_with_endless_bandwidth_the_arithmetic_counts():
    setting = Setting(SHAPE, prompts=1, samples=2, prompt_tokens=3, limit=2)
    least = least_seconds(setting, Machine(flops=2.0, bandwidth=float("inf")))
    prompt = 3 * LAYER + (1 + 2 + 3) * KEY
    # The first tokens' logits are the prompt's; then both rows go through once, and see 4 keys.
    assert least["rollout"] == prompt + HEAD + 2 * (LAYER + HEAD + 4 * KEY)
    tokens = 2 * 2 * (LAYER + HEAD) + 2 * (4 + 5) * KEY
    assert least["update"] == 3 * (prompt + tokens)


def test_with_endless_arithmetic_the_bytes_of_decoding_count():
    setting = Setting(SHAPE, prompts=1, samples=2, prompt_tokens=3, limit=3)
    least = least_seconds(setting, Machine(flops=float("inf"), bandwidth=4.0))
    # Two steps, each reading the weights, 3 keys and values of the prompt, and 2 * t of the rows.
    assert least["rollout"] == pytest.approx(2 * (LAYER + HEAD) + 4 * (3 + 2 * 1 + 3 + 2 * 2))
    assert least["update"] == 0
