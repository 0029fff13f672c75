"""Groups whose answers one can see: a question's relevant document holds its word, the others do not."""

from models.training.groups import Group

WORDS = ("tide", "moon", "sea", "water", "cat", "dog", "rain", "sun")


def toy_groups(times: int = 3) -> list[Group]:
    """A question a word: of its three documents the one that says the word is relevant."""
    groups = []
    for number in range(times * len(WORDS)):
        word, other, third = (WORDS[(number + step) % len(WORDS)] for step in (0, 3, 5))
        documents = (
            ("", f"the {other} is in the {third}"),
            (third, f"a {word} and the {word}"),
            ("", f"{other}"),
        )
        scores = {"bm25": (0.0, 9.0, 0.0), "dense": (0.1, 0.8, 0.2)}
        groups.append(Group(f"is a {word}", documents, (False, True, False), scores, "toys"))
    return groups
