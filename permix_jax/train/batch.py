"""The batch that goes from rollout to update."""

import flax.struct
import numpy as np


@flax.struct.dataclass
class RolloutBatch:
    """N rollouts of U distinct prompts on the host: rollout n answers prompt n // (N / U).

    U is the number of problems where they have one persona each, and N where each rollout has a
    persona of its own. T is the completion budget.

    Attributes:
      prompt_tokens, prompt_mask: [U, P], right-padded.
      completion_tokens, completion_mask: [N, T]; the end token is inside the mask.
      logprobs: f32 [N, T] under the behaviour policy, exactly as sampled.
      truncated: bool [N], the budget ran out.
      rewards: f32 [N], NaN where the verifier could not tell; the loss leaves such rollouts out.
      advantages: f32 [N].
      problem: int32 [N], which problem of the step.
      persona: int32 [N], index into the personas of the run, -1 for none.
      group: int [N], which rollouts share a baseline.
    """

    prompt_tokens: np.ndarray
    prompt_mask: np.ndarray
    completion_tokens: np.ndarray
    completion_mask: np.ndarray
    logprobs: np.ndarray
    truncated: np.ndarray
    rewards: np.ndarray
    advantages: np.ndarray
    problem: np.ndarray
    persona: np.ndarray
    group: np.ndarray
