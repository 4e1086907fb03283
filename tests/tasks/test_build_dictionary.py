import numpy as np

from dsol_core.dictionary import ObjectDictionary, PseudoLabels
from tasks.build_dictionary import with_labels

FOUND = PseudoLabels(tuple(f"k{i}" for i in range(8)), np.array([0, 0, 0, 0, 1, 1, 1, 1]))
BARE = ObjectDictionary(np.eye(2), np.array([4, 4]), ("cluster-00", "cluster-01"))


def test_where_some_clips_have_labels_these_are_what_is_measured():
    known = {"k0": "tuba", "k1": "tuba", "k2": "cello", "k6": "cello", "elsewhere": "harp"}
    made, summary = with_labels(BARE, FOUND, known)
    assert made.categories == ("tuba", "cello")
    assert (summary["labelled"], summary["purity"]) == (0.5, 0.75)
    assert 0 < summary["nmi"] < 1
    assert summary["entries"] == [
        {"entry": "cluster-00", "category": "tuba", "samples": 3, "purity": 2 / 3},
        {"entry": "cluster-01", "category": "cello", "samples": 1, "purity": 1.0},
    ]


def test_without_labels_there_are_no_categories():
    made, summary = with_labels(BARE, FOUND, {})
    assert made.categories is None
    assert summary == {"labelled": 0.0, "nmi": None, "purity": None, "entries": None}
