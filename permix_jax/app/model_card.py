"""The README of an exported policy."""

from pathlib import Path

from permix_jax.core.fields import flat_fields
from permix_jax.evaluation.results import read_evaluations
from permix_jax.report.overview import summary_table


def model_card(record: dict, workdir: Path, step: int) -> str:
    """Markdown: what the policy is, how it was trained, and what its run's evaluations say.

    Args:
      record: the run's config.json.
      step: the checkpoint that is exported.
    """
    c = record["config"]
    name = f"configs/{record['name']}.py" + (f":{record['preset']}" if record["preset"] else "")
    return "\n".join(
        [
            *_front_matter(c),
            f"# {workdir.resolve().name}, step {step} of {c['train']['steps']}",
            "",
            _method(c),
            "",
            f"- Base: {c['model']['source'] or 'a small decoder made from scratch'}, {_base(c)}.",
            f"- Data: {_data(c)}.",
            f"- Each step: {c['train']['problems_per_step']} problems with "
            f"{c['rollout']['group_size']} rollouts, at temperature {c['rollout']['temperature']}, "
            f"learning rate {c['train']['learning_rate']}, KL weight {c['grpo']['kl_weight']}.",
            f"- Trained: {_trained(c)}.",
            *_own_functions(record.get("method", {})),
            f"- Made by permix_jax {record['versions']['permix_jax']} ({record['git']}), "
            f"`python launch/train.py --config={name}`, on {record['device']}; "
            "permix_config.json has every field.",
            "",
            "Prompts take the persona as the system message. Needs transformers 5 or later.",
            "",
            "## Evaluation",
            "",
            *_evaluation(workdir, step),
            "",
        ]
    )


def _data(c: dict) -> str:
    if c["task"]["name"] == "latent_style":
        return "the embedded latent-style world of permix_jax (generated sums and chats)"
    test = c["data"]["test"] or "problems held out of them"
    return f"{c['data']['train']} to train on, {test} to test on"


def _front_matter(c: dict) -> list[str]:
    source = c["model"]["source"]
    on_hub = source.count("/") == 1 and not source.startswith((".", "/", "pypi:"))
    on_hub = on_hub and not source.endswith(".gguf")
    base = [f"base_model: {source}"] if on_hub else []
    tags = "tags: [grpo, permix-rlvr, personas]"
    return ["---", "library_name: transformers", *base, tags, "---"]


def _method(c: dict) -> str:
    if c["personas"]["share"] == 0:
        return "Trained by RLVR: GRPO with verifiable rewards, no persona in any prompt."
    return (
        "Trained by PerMix-RLVR (arXiv 2604.08986): GRPO with verifiable rewards, a persona in "
        f"{c['personas']['share']:.0%} of the prompts, one for each {c['personas']['level']}."
    )


def _own_functions(method: dict) -> list[str]:
    parts = flat_fields(method).items()
    named = "; ".join(f"{part}: `{function}`" for part, function in parts)
    return [f"- Functions of the run's own in place of the package's: {named}."] if parts else []


def _base(c: dict) -> str:
    steps = c["sft"]["steps"]
    return f"after {steps} steps of SFT on worked solutions" if steps else "as it is"


def _trained(c: dict) -> str:
    lora = c["lora"]
    if not lora["rank"]:
        return "all weights"
    return f"LoRA adapters of rank {lora['rank']}, alpha {lora['alpha']}, on {lora['targets']}"


def _evaluation(workdir: Path, step: int) -> list[str]:
    try:
        found = {e.step: e for e in read_evaluations(workdir)}
    except FileNotFoundError:
        found = {}
    if step not in found:
        return [f"The run has no evaluation of step {step}."]
    rows = {"base": found.get(0), f"step {step}": found[step]}
    table = summary_table({row: (e.stability, e.fidelity) for row, e in rows.items() if e})
    return [
        "Under personas that training never saw; intervals are 95 % bootstrap intervals.",
        "PSS, the persona stability score, is the worst accuracy over the best one.",
        "",
        "```",
        table,
        "```",
    ]
