"""Which decoders can run in blocks, and what is refused by name.

A family is here because `tests/models/in_context/test_families.py` has found its tiny random net to give in
blocks what it gives in one sequence under the same mask.
"""

from typing import Any

RESUMED = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2", "smollm3"})
"""Their forwards can go on from the states between two layers, which early dropping needs."""

KNOWN = RESUMED | {"gemma", "gemma3_text", "granite"}

ATTENTION = frozenset({"full_attention", "sliding_attention"})


def check(model: Any, name: str) -> None:
    """ValueError, saying why, for a decoder that cannot run in blocks."""
    config = model.config
    if config.model_type not in KNOWN:
        raise ValueError(
            f"{name} is a {config.model_type}, which is not known to run in blocks; known are "
            f"{', '.join(sorted(KNOWN))}"
        )
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - ATTENTION:
        raise ValueError(f"{name} has layers of {', '.join(sorted(kinds - ATTENTION))}, which have no blocks")
    if getattr(config, "attn_logit_softcapping", None):
        raise ValueError(f"{name} caps its attention logits, which cannot be read here")


def span(model: Any) -> int:
    """How far a position may be from the first: the context, or the sliding window if there is a shorter
    one.
    """
    config = model.config
    kinds = getattr(config, "layer_types", None)
    slides = "sliding_attention" in kinds if kinds else True
    window = getattr(config, "sliding_window", None) if slides else None
    most = int(config.max_position_embeddings)
    return min(most, int(window)) if window else most


def check_span(model: Any, name: str, wanted: int) -> None:
    """ValueError if a prompt of blocks reaches beyond what a token can see."""
    most = span(model)
    if wanted > most:
        raise ValueError(
            f"a prompt for {name} spans {wanted} positions, from instruction to end of question, and a token "
            f"sees {most} (context or sliding window): choose a smaller gap, document_tokens and "
            "question_tokens in in_context.json"
        )
