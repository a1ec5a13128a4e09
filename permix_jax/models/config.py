"""The shape of a decoder, as data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """A Llama-type decoder: pre-norm, RoPE, grouped-query attention, SwiGLU.

    `dtype` is the dtype of matmuls and activations, `param_dtype` the one parameters are kept in;
    norms, RoPE, softmax and log-probabilities are always f32. `remat` recomputes each layer's
    activations in the backward pass instead of keeping them.
    """

    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = True
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: bool = False

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"model: num_heads = {self.num_heads} is not a multiple of "
                f"num_kv_heads = {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"model: head_dim = {self.head_dim} must be even for RoPE")
