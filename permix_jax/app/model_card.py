"""The README of an exported policy."""

from pathlib import Path

from permix_jax.core.fields import flat_fields
from permix_jax.evaluation.results import read_evaluations
from permix_jax.report.overview import summary_table

_TEMPLATE = """\
---
library_name: transformers
{base_model}tags: [grpo, permix-rlvr, personas]
---
# {run}, step {step} of {c[train][steps]}

{method}

- Base: {base}.
- Data: {data}.
- Each step: {c[train][problems_per_step]} problems with {c[rollout][group_size]} rollouts, at \
temperature {c[rollout][temperature]}, learning rate {c[train][learning_rate]}, KL weight \
{c[grpo][kl_weight]}.
- Trained: {trained}.
{functions}- Made by permix_jax {record[versions][permix_jax]} ({record[git]}), \
`python launch/train.py --config=configs/{record[name]}.py{preset}`, on {record[device]}; \
permix_config.json has every field.

Prompts take the persona as the system message. Needs transformers 5 or later.

## Evaluation

{evaluation}
"""


def model_card(record: dict, workdir: Path, step: int) -> str:
    """Markdown: what the policy is, how it was trained, and what its run's evaluations say.

    `record` is the run's config.json; `step`, the checkpoint that is exported.
    """
    c = record["config"]
    source, lora, test = c["model"]["source"], c["lora"], c["data"]["test"]
    on_hub = source.count("/") == 1 and not source.startswith((".", "/", "pypi:"))
    base_model = f"base_model: {source}\n" if on_hub and not source.endswith(".gguf") else ""

    method = "Trained by RLVR: GRPO with verifiable rewards, no persona in any prompt."
    if share := c["personas"]["share"]:
        method = (
            "Trained by PerMix-RLVR (arXiv 2604.08986): GRPO with verifiable rewards, a persona in "
            f"{share:.0%} of the prompts, one for each {c['personas']['level']}."
        )
    after = f"after {c['sft']['steps']} steps of SFT on worked solutions"
    base = f"{source or 'a small decoder made from scratch'}, "
    after = after if c["sft"]["steps"] else "as it is"
    if start := record.get("start"):
        after = f"as step {start['step']} of the run {Path(start['run']).name} left it"
    data = f"{c['data']['train']} to train on, {test or 'problems held out of them'} to test on"
    if c["task"]["name"] == "latent_style":
        data = "the embedded latent-style world of permix_jax (generated sums and chats)"
    trained = "all weights"
    if lora["rank"]:
        trained = (
            f"LoRA adapters of rank {lora['rank']}, alpha {lora['alpha']}, on {lora['targets']}"
        )
    own = flat_fields(record.get("method", {})).items()
    functions = "; ".join(f"{part}: `{function}`" for part, function in own)
    if own:
        functions = f"- Functions of the run's own in place of the package's: {functions}.\n"
    return _TEMPLATE.format(
        c=c,
        record=record,
        run=workdir.resolve().name,
        step=step,
        preset=f":{record['preset']}" if record["preset"] else "",
        base_model=base_model,
        method=method,
        base=base + after,
        data=data,
        trained=trained,
        functions=functions,
        evaluation=_evaluation(workdir, step),
    )


def _evaluation(workdir: Path, step: int) -> str:
    try:
        found = {e.step: e for e in read_evaluations(workdir)}
    except FileNotFoundError:
        found = {}
    if step not in found:
        return f"The run has no evaluation of step {step}."
    rows = {"base": found.get(0), f"step {step}": found[step]}
    table = summary_table({row: (e.stability, e.fidelity) for row, e in rows.items() if e})
    return (
        "Under personas that training never saw; intervals are 95 % bootstrap intervals.\n"
        "PSS, the persona stability score, is the worst accuracy over the best one.\n\n"
        f"```\n{table}\n```"
    )
