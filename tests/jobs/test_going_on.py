from __future__ import annotations

from headstart.jobs.going_on import _upgraded


def test_records_of_the_first_version_are_read() -> None:
    """As version 0.1 wrote them: other names, and a sentence for an object in memory."""
    old = {"colour": "strong", "most": 30, "teacher": "live VisionTransformer (None)", "data": ["live pictures"]}
    assert _upgraded(old) == {
        "color": "strong",
        "max_objects": 30,
        "teacher": {"in_memory": "VisionTransformer", "origin": "None"},
        "data": ["live pictures"],
    }
    assert _upgraded({"teacher": "live.pt", "model": "live wire/a.pt"}) == {
        "teacher": "live.pt",
        "model": "live wire/a.pt",
    }
