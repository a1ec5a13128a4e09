"""A `tensorflow_datasets` builder for each data set; TensorFlow itself is never needed.

Importing this module registers the builders with TFDS, as "permix_gsm8k" and so on: its own
"gsm8k" and others have other features. An example has `id`, `prompt` (the bare question), `answer`,
`source` and `meta`, which is JSON; examples keep the order of their files.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain

import tensorflow_datasets as tfds

from permix_jax.core.problem import Problem
from permix_jax.tasks.datasets.catalogue import DATASETS
from permix_jax.tasks.datasets.download import download, url_infos
from permix_jax.tasks.datasets.rows import read_problems
from permix_jax.tasks.datasets.sources import local_path

FEATURES = ("id", "prompt", "answer", "source", "meta")


class ProblemSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds the data set `SOURCE` from a local folder if one is named, else from its home."""

    VERSION = tfds.core.Version("1.0.0")
    SOURCE: str
    url_infos = url_infos(chain.from_iterable(dataset.files for dataset in DATASETS.values()))

    def __init__(self, *, folder: str = "", **arguments):
        """`folder` holds the files as `sources.local_path` says; `arguments` are those of TFDS."""
        self._folder = folder
        super().__init__(**arguments)

    def _info(self) -> tfds.core.DatasetInfo:
        dataset = DATASETS[self.SOURCE]
        return tfds.core.DatasetInfo(
            builder=self,
            description=dataset.description,
            features=tfds.features.FeaturesDict({name: tfds.features.Text() for name in FEATURES}),
            homepage=dataset.homepage,
            license=dataset.license,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        dataset = DATASETS[self.SOURCE]
        if self._folder:
            paths = [local_path(self._folder, file, self.SOURCE) for file in dataset.files]
            contents = [(str(path), path.read_bytes()) for path in paths]
        else:
            contents = list(download(dataset.files, dl_manager, self.SOURCE))
        problems = [
            problem
            for name, content in contents
            for problem in read_problems(content, name, self.SOURCE, dataset.reader)
        ]
        return {dataset.split: self._generate_examples(problems)}

    def _generate_examples(self, problems: Iterable[Problem]) -> Iterator[tuple[int, dict]]:
        for index, problem in enumerate(problems):
            meta = json.dumps(problem.meta, ensure_ascii=False)
            fields = (problem.id, problem.prompt, problem.answer, problem.source, meta)
            yield index, dict(zip(FEATURES, fields, strict=True))


class PermixGsm8k(ProblemSet):
    """GSM8K, the training problems."""

    SOURCE = "gsm8k"


class PermixGsm8kTest(ProblemSet):
    """GSM8K, the test problems."""

    SOURCE = "gsm8k_test"


class PermixMath(ProblemSet):
    """MATH, the training problems."""

    SOURCE = "math"


class PermixMath12k(ProblemSet):
    """MATH, its training problems and its test problems that are not in MATH500."""

    SOURCE = "math12k"


class PermixMath500(ProblemSet):
    """MATH500."""

    SOURCE = "math500"


class PermixAime24(ProblemSet):
    """AIME 2024."""

    SOURCE = "aime24"


class PermixMawps(ProblemSet):
    """MAWPS."""

    SOURCE = "mawps"


class PermixSvamp(ProblemSet):
    """SVAMP."""

    SOURCE = "svamp"


BUILDERS: dict[str, type[ProblemSet]] = {
    builder.SOURCE: builder for builder in ProblemSet.__subclasses__()
}
