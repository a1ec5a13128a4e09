"""transformers and TRL on PyTorch: `GRPOTrainer.train`, one step for each line (protocol.py).

Rollout: `GRPOTrainer._generate`, which tokenises, calls `model.generate` with its KV cache, and
decodes. Update: what the step does once rewards and advantages are there. A row ends where a
logits processor lets it draw nothing but the end token; nowhere else can it draw that one.

All is TRL's default but for what the work asks for (f32; beta is 0 by default, so no reference)
and for what makes its update faster here: no gradient checkpointing, ROWS rows at a time.
"""

import tempfile
from importlib.metadata import version

import torch
from datasets import Dataset
from protocol import END, PAD, Session, reward, tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

ROWS = 8  # of a micro-batch
STEPS = 1_000_000  # more than will be asked for


def main() -> None:
    session = Session()
    work = session.work
    rows = len(work["lengths"])
    micro = min(ROWS, rows)
    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=rows // micro,
            num_generations=work["samples"],
            max_completion_length=work["limit"],
            max_steps=STEPS,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            LlamaForCausalLM(LlamaConfig(**work["shape"], dtype="float32")),
            reward_funcs=lambda completions, **_: [reward(text) for text in completions],
            args=args,
            train_dataset=Dataset.from_list([{"prompt": text} for text in work["prompts"]]),
            processing_class=tokenizer(work["shape"]["vocab_size"]),
        )
        trainer.add_callback(OnDemand(session, trainer))
        session.ready(
            versions={name: version(name) for name in ("trl", "transformers", "torch")},
            settings=f"{micro} rows a micro-batch, no gradient checkpointing",
        )
        trainer.train()


class OnDemand(TrainerCallback):
    """Makes the trainer wait for the driver before each step, and answer after it."""

    def __init__(self, session: Session, trainer: GRPOTrainer):
        self._session = session
        self._model_generate = trainer.model.generate
        self._generate = session.in_phase("rollout", trainer._generate)
        self._score = trainer._generate_and_score_completions
        trainer.model.generate = self._scripted
        trainer._generate = self._keep_lengths
        trainer._generate_and_score_completions = self._begin_update

    def on_train_begin(self, args, state, control, optimizer, **_) -> None:
        # Nothing is compiled; the optimiser makes its state, which the first step would do.
        self._session.wait()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        self._session.done([], compile_seconds=0.0)

    def on_step_begin(self, args, state, control, **_) -> None:
        if not self._session.wait():
            raise SystemExit

    def on_step_end(self, args, state, control, **_) -> None:
        self._session.done(self._lengths, compile_seconds=0.0)

    def _scripted(self, input_ids: torch.Tensor, **kwargs) -> torch.Tensor:
        work, start = self._session.work, input_ids.shape[1]
        ends = torch.tensor([n if n < work["limit"] else 0 for n in work["lengths"]])

        def force(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            scores[:, [PAD, END]] = -torch.inf
            scores[ends == ids.shape[1] - start + 1, END] = 1e9
            return scores

        processors = LogitsProcessorList([force])
        return self._model_generate(input_ids=input_ids, logits_processor=processors, **kwargs)

    def _keep_lengths(self, prompts):
        found = self._generate(prompts)
        self._lengths = [len(ids) for ids in found[1]]
        return found

    def _begin_update(self, inputs):
        batch = self._score(inputs)
        self._session.phase("update")
        return batch


if __name__ == "__main__":
    main()
