"""Prompts for role-play rehearsal, which have no right answer. None of them is in PersonaGym."""

import json
from importlib import resources

_LINES = (resources.files(__package__) / "conversation.jsonl").read_text("utf-8").splitlines()
CONVERSATION = tuple(json.loads(line)["prompt"] for line in _LINES)
