"""A dataset as another task sees it: with labels that only judge, or that nobody needs."""

from dataclasses import replace

from model_compression.data.dataset import Dataset

EMBEDDING, UNLABELLED = "embedding", "embedding-unlabelled"


def as_task(pair: tuple[Dataset, Dataset], task: str) -> tuple[Dataset, Dataset]:
    """(training set, test set) for ``task``; the samples and digests stay.

    For "embedding" classes become targets (N, 1), by which embeddings are judged and which nothing learns from. A test
    set without labels is of the task "embedding-unlabelled".
    """
    if task != EMBEDDING or pair[0].task in (EMBEDDING, UNLABELLED):
        return pair
    known = [part.labelled and part.one_each for part in pair]
    train, test = (
        replace(
            part,
            task=EMBEDDING if known[1] else UNLABELLED,
            class_names=(),
            labels=part.labels.reshape(len(part), -1)[:, :1],
            labelled=labelled,
        )
        for part, labelled in zip(pair, known, strict=True)
    )
    return train, test
