"""A `tensorflow_datasets` builder for each data set; none needs TensorFlow.

Importing this module registers the builders with TFDS, as "permix_gsm8k" and so on: TFDS has a
"gsm8k" of its own, with other features. An example has `id`, `prompt` (the bare question),
`answer`, `source` and `meta` (JSON). Examples keep the order of their files.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain

import tensorflow_datasets as tfds

from permix_jax.core.problem import Problem
from permix_jax.tasks.datasets.catalogue import DATASETS, local_path
from permix_jax.tasks.datasets.fetch import download, url_infos
from permix_jax.tasks.datasets.rows import read_problems

FEATURES = ("id", "prompt", "answer", "source", "meta")


class ProblemSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds the data set `SOURCE` from a local folder if one is named, else from its URLs."""

    VERSION = tfds.core.Version("1.0.0")
    SOURCE: str
    url_infos = url_infos(chain.from_iterable(dataset.files for dataset in DATASETS.values()))

    def __init__(self, *, folder: str = "", **arguments):
        """`folder`: where `local_path` finds the files. `arguments`: those of TFDS."""
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
            yield index, {**vars(problem), "meta": json.dumps(problem.meta, ensure_ascii=False)}


BUILDERS = {
    source: type(
        f"Permix_{source}",
        (ProblemSet,),
        {"SOURCE": source, "name": f"permix_{source}", "__module__": __name__},
    )
    for source in DATASETS
}
