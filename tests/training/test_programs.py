"""The jitted programs of a GRPO run."""

import numpy as np
from runs import load_config

from permix_jax.grpo.batch import RolloutBatch
from permix_jax.training.programs import grpo_programs


def test_the_reference_scores_the_same_in_any_number_of_parts(tiny_model, tiny_params, mesh):
    rng = np.random.default_rng(0)
    prompts, rows = (4, 3), (8, 5)
    lengths = rng.integers(1, 6, rows[0])
    nothing = np.zeros(rows[0], np.float32)
    batch = RolloutBatch(
        prompt_tokens=rng.integers(0, 48, prompts, np.int32),
        prompt_mask=np.ones(prompts, bool),
        completion_tokens=rng.integers(0, 48, rows, np.int32),
        completion_mask=np.arange(rows[1]) < lengths[:, None],
        logprobs=np.zeros(rows, np.float32),
        reference_logprobs=np.zeros(rows, np.float32),
        truncated=nothing > 0,
        rewards=nothing,
        advantages=nothing,
        problem=np.repeat(np.arange(4, dtype=np.int32), 2),
        persona=nothing.astype(np.int32),
    )

    def scores(parts):
        config = load_config("permix.py", "tiny", train__micro_batches=parts)
        return grpo_programs(config, tiny_model, mesh).score(tiny_params, batch)

    whole, mask = scores(1), batch.completion_mask
    assert np.ptp(whole.logprobs[mask]) > 0.1
    for parts in (2, 4):
        for got, expected in zip(scores(parts), whole, strict=True):
            np.testing.assert_allclose(got[mask], expected[mask], rtol=1e-5)
