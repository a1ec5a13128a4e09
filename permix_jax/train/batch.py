"""The batch that goes from rollout to update."""

import flax.struct
import jax


@flax.struct.dataclass
class RolloutBatch:
    """N rollouts of U distinct prompts, N = U * S: rollout n answers prompt n // S.

    With a persona per problem U is the number of problems and S the group size; with a persona
    per rollout every rollout has its own prompt. T is the completion length.

    Attributes:
      prompt_tokens, prompt_mask: [U, P], right-padded.
      completion_tokens, completion_mask: [N, T]; the end token is inside the mask.
      logprobs: f32 [N, T] under the behaviour policy, exactly as sampled.
      trainer_logprobs: f32 [N, T] under the same policy, as the update scores it, where several
        updates correct for the difference (`grpo.importance_cap`); else None.
      reference_logprobs: f32 [N, T] under the frozen reference; zeros where no KL is asked for.
      truncated: bool [N], the budget ran out.
      rewards: f32 [N], NaN where the verifier could not tell; the loss leaves such rollouts out.
      advantages: f32 [N].
      problem: int32 [N], which problem of the step.
      persona: int32 [N], index into the personas of the run, -1 for none.
    """

    prompt_tokens: jax.Array
    prompt_mask: jax.Array
    completion_tokens: jax.Array
    completion_mask: jax.Array
    logprobs: jax.Array
    reference_logprobs: jax.Array
    truncated: jax.Array
    rewards: jax.Array
    advantages: jax.Array
    problem: jax.Array
    persona: jax.Array
    trainer_logprobs: jax.Array | None = None
