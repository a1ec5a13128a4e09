"""The shape of a decoder, as data. Llama 3, Qwen 2 and 3, and Gemma 3 differ in its fields."""

from dataclasses import dataclass

# The linear layers that can carry a LoRA adapter, by the names that PEFT users know.
LORA_TARGETS = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "o_proj": "out",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
}
# What the backward pass of a layer computes again instead of keeping it: nothing, all but the
# outputs of linear layers, or all.
REMAT = ("none", "dots", "full")
# Who computes attention in packed rows (`packed_attention.py`); auto: by the platform.
ATTENTION = ("auto", "blocks", "tpu")


@dataclass(frozen=True)
class Rope:
    """Rotary positions (arXiv 2104.09864): pair i of a head turns by theta^(-2i/D) per position.

    factor: how much longer wavelengths become. With original_context 0 all of them do ("linear"
      scaling). Otherwise (Llama 3.1) those longer than original_context / low_freq_factor do, those
      shorter than original_context / high_freq_factor stay, and between them it is interpolated.
    """

    theta: float = 10_000.0
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 0


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685): W x becomes W x + (alpha / rank) B A x."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = tuple(LORA_TARGETS)

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"lora.rank is {self.rank}; use 1 or more")
        if odd := [name for name in self.targets if name not in LORA_TARGETS]:
            raise ValueError(f"lora.targets has {odd[0]!r}; use some of {', '.join(LORA_TARGETS)}")


@dataclass(frozen=True)
class ModelConfig:
    """A pre-norm decoder with RoPE, grouped-query attention and a gated MLP.

    The defaults are Llama's. Qwen 2 adds `qkv_bias`, Qwen 3 `qk_norm`, Gemma 3 all below it, too.

    rope: of all layers but the local ones.
    max_context: the longest sequence that the model was made for; None: not known.
    qkv_bias: whether a vector is added to queries, keys and values, before RoPE.
    qk_norm: whether queries and keys of each head are RMS-normed, before RoPE.
    local_layers: layers whose tokens see only the last `window` positions, their own included, and
      are rotated by `local_rope`.
    post_norms: whether the outputs of attention and MLP are normed, too, before they are added.
    norm_offset: norms multiply by norm_offset + scale.
    activation: of the MLP's gate: silu or gelu (the tanh form).
    embed_scale: multiplies the embeddings of tokens (not the LM head).
    query_scale: multiplies attention scores; None: head_dim^-0.5.
    dtype: of matmuls and activations. Norms, RoPE, softmax and log-probs are always f32.
    param_dtype: of the stored weights. Adapters are always f32.
    remat: one of REMAT.
    attention: one of ATTENTION.
    """

    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    rope: Rope = Rope()
    max_context: int | None = None
    norm_eps: float = 1e-5
    tie_embeddings: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    local_layers: tuple[int, ...] = ()
    window: int = 0
    local_rope: Rope = Rope()
    post_norms: bool = False
    norm_offset: float = 0.0
    activation: str = "silu"
    embed_scale: float = 1.0
    query_scale: float | None = None
    lora: Lora | None = None
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    attention: str = "auto"

    def __post_init__(self):
        heads, kv_heads = self.num_heads, self.num_kv_heads
        if heads % kv_heads:
            raise ValueError(
                f"model: num_heads = {heads} is not a multiple of num_kv_heads = {kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"model: head_dim = {self.head_dim} must be even for RoPE")
        if self.local_layers and self.window < 1:
            raise ValueError(f"model: window = {self.window}; local layers need 1 or more")
        if self.activation not in ("silu", "gelu"):
            raise ValueError(f"model: activation = {self.activation!r}; use silu or gelu")
        if self.remat not in REMAT:
            raise ValueError(f"model: remat = {self.remat!r}; use {', '.join(REMAT)}")
        if self.attention not in ATTENTION:
            raise ValueError(f"model: attention = {self.attention!r}; use {', '.join(ATTENTION)}")

    def kept_heads(self, tensor: int) -> int:
        """How many key/value heads attention reads and a cache holds on a mesh.

        They are the model's `num_kv_heads`, or if that is fewer than the `tensor` devices that
        share heads, one for each of these: then neighbours hold the same head.
        """
        return self.num_kv_heads if self.num_kv_heads % tensor == 0 else tensor
