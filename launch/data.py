"""Shows what a run would see of its data, before it costs anything.

  python launch/data.py --config=configs/permix.py:smollm2_mawps
  python launch/data.py --config=configs/permix.py:qwen25_0_5b --config.data.train=mine.csv

Prints how many problems each set gives, how long prompts are against rollout.max_prompt_tokens, and
the first prompts of the run as the model gets them, with their personas. What is left out (doubles,
problems of the test set) and gold answers that cannot be read back are logged. Reads the model's
tokenizer, and none of its weights.
"""

from permix_jax.app.cli import changed_fields, config_arguments, launch
from permix_jax.core.field_rules import require_read


def main(config, workdir, name, preset) -> None:
    from permix_jax.app.data_view import data_view
    from permix_jax.app.next_steps import after_planning
    from permix_jax.app.workdir import cache_folder

    require_read([config.to_dict()], changed_fields(), "data")
    print(data_view(config, cache_folder()))
    print(after_planning(config_arguments()))


if __name__ == "__main__":
    launch(main, of_a_run=False)
